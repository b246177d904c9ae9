// data-drop: a file may be dropped there. data-limit: bytes, a larger one is not sent at all. data-preview: the address
// that shows what is in the file before anything is saved. data-preview-with: names of fields that go along to there.

export function watchDrops(root) {
  for (const place of root.querySelectorAll("[data-drop]")) {
    if (place.isWatched) continue;
    place.isWatched = true;
    const input = place.querySelector('input[type="file"]');
    input.addEventListener("change", () => look(place, input));
    if (input.files.length) look(place, input); // chosen before this script came
    for (const name of along(place)) {
      input.form.elements[name]?.addEventListener("change", () => input.files.length && look(place, input));
    }
    place.addEventListener("dragover", (event) => {
      event.preventDefault();
      place.classList.add("over");
    });
    place.addEventListener("dragleave", () => place.classList.remove("over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("over");
      if (!event.dataTransfer.files.length) return;
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }
}

function along(place) {
  return (place.dataset.previewWith ?? "").split(" ").filter(Boolean);
}

async function look(place, input) {
  const [file] = input.files;
  const preview = place.querySelector(".preview");
  preview.replaceChildren();
  if (!file) return;
  if (file.size > Number(place.dataset.limit)) {
    input.value = "";
    say(preview, place.dataset.tooLarge);
    return;
  }
  if (!place.dataset.preview) return;
  const form = new FormData();
  form.append("csrf", input.form.elements.csrf.value);
  form.append("file", file);
  for (const name of along(place)) form.append(name, input.form.elements[name]?.value ?? "");
  let shown;
  try {
    const answer = await fetch(place.dataset.preview, {
      method: "POST",
      body: form,
      headers: { "moorage-fragment": "preview" },
    });
    shown = await answer.text();
  } catch {
    say(preview, document.getElementById("connection").dataset.gone);
    return;
  }
  if (input.files[0] !== file) return; // another one has been chosen meanwhile
  preview.innerHTML = shown;
  // What must not be sent again, a private key for one, is taken out of the form.
  if (preview.querySelector("[data-forget-file]")) input.value = "";
  preview.dispatchEvent(new CustomEvent("moorage:added", { bubbles: true }));
}

function say(preview, sentence) {
  preview.replaceChildren(Object.assign(document.createElement("p"), { className: "problem", textContent: sentence }));
}
