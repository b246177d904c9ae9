// data-live: an address that is asked again and again for what is new, while the page is looked at.
//
// 200 with HTML is put in place: instead of what is there, before it or behind it (data-live-mode). 204 is "nothing
// new". The header `moorage-next` names the address to ask next. A button with data-live-pause="#id" holds it.
// When the server does not answer, the page says so and goes on trying.

const GONE = [1000, 2000, 4000, 8000]; // milliseconds between tries

export function keepLive(root) {
  for (const place of root.querySelectorAll("[data-live]")) {
    if (place.isLive) continue;
    place.isLive = true;
    follow(place);
  }
  for (const button of root.querySelectorAll("[data-live-pause]")) {
    if (button.isWatched) continue;
    button.isWatched = true;
    button.addEventListener("click", () => {
      const place = document.querySelector(button.dataset.livePause);
      place.isPaused = !place.isPaused;
      button.setAttribute("aria-pressed", String(place.isPaused));
      button.textContent = place.isPaused ? button.dataset.resume : button.dataset.pause;
    });
  }
}

async function follow(place) {
  let failures = 0;
  while (place.isConnected) {
    const every = Number(place.dataset.liveEvery);
    await new Promise((go) => setTimeout(go, failures ? GONE[Math.min(failures, GONE.length) - 1] : every));
    if (document.hidden || place.isPaused) continue;
    try {
      const answer = await fetch(place.dataset.live, { headers: { "moorage-fragment": "live" } });
      if (answer.status === 401) return location.reload();
      if (answer.status === 404) return; // what it was about has been deleted
      if (!answer.ok) throw new Error(String(answer.status));
      const heldBack = answer.status !== 204 && (place.isPaused || !put(place, await answer.text()));
      if (!heldBack) place.dataset.live = answer.headers.get("moorage-next") ?? place.dataset.live;
      failures = 0;
      tellOfServer(place, true);
    } catch {
      failures += 1;
      tellOfServer(place, false);
    }
  }
}

/** False where it would take away what somebody is at: the focus, or rows that are selected. */
function put(place, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const added = [...template.content.children];
  if (place.dataset.liveMode === "replace") {
    if (place.innerHTML.trim() === html.trim()) return true;
    if (place.contains(document.activeElement) || place.querySelector('[name="select"]:checked')) return false;
    place.replaceChildren(...added);
  } else {
    for (const each of added) each.classList.add("fresh");
    place[place.dataset.liveMode](...added);
    trim(place);
  }
  place.dispatchEvent(new CustomEvent("moorage:added", { bubbles: true }));
  return true;
}

/** The oldest go, at the other end from where new ones come. */
function trim(place) {
  const keep = Number(place.dataset.liveKeep);
  const oldest = place.dataset.liveMode === "prepend" ? "lastElementChild" : "firstElementChild";
  while (place.childElementCount > keep) place[oldest].remove();
}

const silent = new Set();

/** One line for all live places of a page: a server that is gone is gone for each. */
function tellOfServer(place, answers) {
  const line = document.getElementById("connection");
  const known = silent.size > 0;
  if (answers) silent.delete(place);
  else silent.add(place);
  if (silent.size > 0 && !known) {
    line.textContent = line.dataset.gone;
    line.className = "notice warning";
    line.hidden = false;
  } else if (silent.size === 0 && known) {
    line.textContent = line.dataset.back;
    line.className = "notice success";
    setTimeout(() => (line.hidden = silent.size === 0), 3000);
  }
}
