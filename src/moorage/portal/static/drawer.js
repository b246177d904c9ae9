// A link with data-drawer opens what it leads to at the side of the page; without a script it is a link like any other.

import { ended } from "./live.js";

export function watchDrawer(awaken) {
  const drawer = document.getElementById("drawer");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-drawer]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(drawer, link.href, awaken);
  });
  drawer.addEventListener("click", (event) => {
    if (event.target === drawer) drawer.close(); // the backdrop
  });
}

async function open(drawer, href, awaken) {
  try {
    const answer = await fetch(href, { headers: { "moorage-fragment": "drawer" } });
    if (answer.status === 401) ended();
    drawer.innerHTML = await answer.text();
  } catch {
    const { gone } = document.getElementById("connection").dataset;
    drawer.replaceChildren(Object.assign(document.createElement("p"), { className: "notice warning", textContent: gone }));
  }
  const bar = Object.assign(document.createElement("div"), { className: "drawer-bar" });
  const whole = Object.assign(document.createElement("a"), { className: "button", href, textContent: drawer.dataset.whole });
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: drawer.dataset.close });
  close.addEventListener("click", () => drawer.close());
  bar.append(whole, close);
  drawer.prepend(bar);
  drawer.querySelector("h1")?.setAttribute("id", "drawer-title");
  awaken(drawer);
  drawer.showModal();
}
