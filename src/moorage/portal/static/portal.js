// What pages can do beyond plain HTML. Each part finds its places by `data-…` attributes and leaves a page that lacks
// them alone; everything but the live parts works without it too.

import { tellWhatIsWaitedFor } from "./busy.js";
import { watchCopying } from "./copy.js";
import { watchDrawer } from "./drawer.js";
import { watchDrops } from "./drop.js";
import { checkJson } from "./json.js";
import { keepLive } from "./live.js";
import { watchSelection } from "./selection.js";
import { showLocalTimes } from "./time.js";

document.documentElement.classList.add("with-script");

const narrow = matchMedia("(max-width: 52rem)");
const foldMenu = () => document.querySelector(".menu")?.toggleAttribute("open", !narrow.matches);
narrow.addEventListener("change", foldMenu);
foldMenu();

document.addEventListener("change", (event) => {
  if (event.target.closest("[data-submit-on-change]")) event.target.form.requestSubmit();
});

/** Everything that new content needs; called for what scripts put in as well. */
export function awaken(root) {
  showLocalTimes(root);
  checkJson(root);
  watchDrops(root);
  keepLive(root);
  watchSelection();
}

tellWhatIsWaitedFor();
watchCopying();
watchDrawer(awaken);
document.addEventListener("moorage:added", (event) => awaken(event.target));
awaken(document);
