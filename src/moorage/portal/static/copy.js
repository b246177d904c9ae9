// data-copy: the text that a button copies; data-copied: what the button says for a moment afterwards.

export function watchCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const label = button.dataset.label ?? button.textContent;
    button.dataset.label = label;
    button.textContent = button.dataset.copied;
    clearTimeout(button.backToLabel);
    button.backToLabel = setTimeout(() => (button.textContent = label), 1500);
  });
}
