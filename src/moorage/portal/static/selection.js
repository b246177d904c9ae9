// A list whose rows are selected with boxes named `select`: data-select-all chooses all of them, and buttons with
// data-needs-selection are off until there is one. The list may be empty at first, and fill up by itself.

export function watchSelection() {
  for (const form of lists()) {
    if (!form.isWatched) {
      form.isWatched = true;
      form.addEventListener("change", (event) => {
        if (event.target.matches("[data-select-all]")) {
          for (const box of boxes(form)) box.checked = event.target.checked;
        }
        show(form);
      });
    }
    show(form);
  }
}

function lists() {
  const found = [...document.querySelectorAll("[data-select-all], [data-needs-selection]")].map((each) => each.form);
  return new Set(found.filter(Boolean));
}

function boxes(form) {
  return [...form.querySelectorAll('input[name="select"]')];
}

function show(form) {
  const chosen = boxes(form).filter((box) => box.checked).length;
  const all = form.querySelector("[data-select-all]");
  if (all) {
    all.checked = chosen > 0 && chosen === boxes(form).length;
    all.indeterminate = chosen > 0 && !all.checked;
  }
  for (const button of document.querySelectorAll("[data-needs-selection]")) {
    if (button.form === form) button.disabled = chosen === 0;
  }
}
