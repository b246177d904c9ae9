// data-copy: the text that a button copies; data-copied: what the button says for a moment afterwards, to screen readers too.

export function watchCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling); // browsers give the clipboard to few names without TLS
      return;
    }
    button.saysElse ??= { text: button.textContent, name: button.getAttribute("aria-label") };
    say(button, button.dataset.copied, null);
    clearTimeout(button.backToLabel);
    button.backToLabel = setTimeout(() => say(button, button.saysElse.text, button.saysElse.name), 1500);
  });
}

/** `name` is what a screen reader calls it, where that is more than its text. */
function say(button, text, name) {
  button.textContent = text;
  if (name === null) button.removeAttribute("aria-label");
  else button.setAttribute("aria-label", name);
}
