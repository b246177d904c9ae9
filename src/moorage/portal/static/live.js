// data-live: an address that is asked again and again for what is new, while the page is looked at.
//
// 200 with HTML is put in place: instead of what is there, before it or behind it (data-live-mode). 204 is "nothing
// new". The header `moorage-next` names the address to ask next. A button with data-live-pause="#id" holds it.
// When the server does not answer, the page says so and goes on trying. Where the session has ended, the page leads to
// the way in, but not while something that was written would be lost.

const GONE = [1000, 2000, 3000]; // milliseconds between tries

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
    const trouble = await bring(place);
    failures = trouble ? failures + 1 : 0;
    tell(place, trouble);
  }
}

/** Ask once. Empty where that went well, else which sentence of the line `connection` says what is wrong. */
async function bring(place) {
  try {
    const answer = await fetch(place.dataset.live, { headers: { "moorage-fragment": "live" } });
    if (answer.status === 401) return ended();
    if (answer.status === 404) return "missing";
    if (!answer.ok) return "failing";
    const heldBack = answer.status !== 204 && (place.isPaused || !put(place, await answer.text()));
    if (!heldBack) place.dataset.live = answer.headers.get("moorage-next") ?? place.dataset.live;
    return "";
  } catch {
    return "gone";
  }
}

/** Nobody is signed in any more: after a restart of the server, for one. */
export function ended() {
  if (!isWritten()) location.reload();
  return "ended";
}

function isWritten() {
  return [...document.querySelectorAll('main form[method="post"]')].some((form) => [...form.elements].some(isChanged));
}

function isChanged(field) {
  if (field.name === "select") return false;
  if (field.type === "file") return field.files.length > 0;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.type === "select-one") {
    return field.selectedIndex !== Math.max([...field.options].findIndex((each) => each.defaultSelected), 0);
  }
  return "defaultValue" in field && field.value !== field.defaultValue;
}

/** False where it would take away what somebody is at: the focus, rows that are selected, text that is marked. */
function put(place, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const added = [...template.content.children];
  if (place.dataset.liveMode === "replace") {
    if (place.innerHTML.trim() === html.trim()) return true;
    if (place.contains(document.activeElement) || place.querySelector('[name="select"]:checked')) return false;
    if (!getSelection().isCollapsed && getSelection().containsNode(place, true)) return false;
    const unfolded = [...place.querySelectorAll("details")].map((each) => each.open);
    place.replaceChildren(...added);
    for (const [at, each] of place.querySelectorAll("details").entries()) each.open = unfolded[at] ?? each.open;
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

const troubles = new Map();

/** One line for all live places of a page: a server that is gone is gone for each. */
function tell(place, trouble) {
  const line = document.getElementById("connection");
  const [known] = troubles.values();
  if (trouble) troubles.set(place, trouble);
  else troubles.delete(place);
  const [now] = troubles.values();
  if (now === known) return;
  line.textContent = line.dataset[now ?? "back"];
  line.className = `notice ${now ? "warning" : "success"}`;
  line.hidden = false;
  if (!now) setTimeout(() => (line.hidden = troubles.size === 0), 3000);
}
