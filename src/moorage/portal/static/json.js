// data-json on a textarea: says where the text is no JSON, while it is written. The server says the same when it is sent.

export function checkJson(root) {
  for (const area of root.querySelectorAll("textarea[data-json]")) {
    area.addEventListener("input", () => say(area, problem(area.value, area.dataset.json)));
    area.addEventListener("keydown", indent);
  }
}

/** The sentence to show, or "". `pattern` has {line} and {column}. */
function problem(text, pattern) {
  if (!text.trim()) return "";
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    const at = position(error.message, text);
    const before = text.slice(0, at).split("\n");
    return pattern.replace("{line}", before.length).replace("{column}", before.at(-1).length + 1);
  }
}

/** Browsers name the place in different ways, and chromium not every time. */
function position(message, text) {
  const place = /position (\d+)/.exec(message);
  if (place) return Number(place[1]);
  const line = /line (\d+) column (\d+)/.exec(message);
  if (!line) return firstWrong(text);
  const before = text.split("\n").slice(0, Number(line[1]) - 1);
  return before.join("\n").length + (before.length ? 1 : 0) + Number(line[2]) - 1;
}

/** The longest beginning of `text` that only lacks its end; halved towards, for a longer one is wrong as well. */
function firstWrong(text) {
  let [right, wrong] = [0, text.length];
  while (wrong - right > 1) {
    const middle = (right + wrong) >> 1;
    if (onlyEnds(text.slice(0, middle))) right = middle;
    else wrong = middle;
  }
  return right;
}

function onlyEnds(text) {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    return /end of/.test(error.message) || Number(/position (\d+)/.exec(error.message)?.[1]) >= text.length;
  }
}

function say(area, sentence) {
  const id = `problem-${area.name}`;
  const shown = document.getElementById(id);
  const line = shown ?? document.createElement("p");
  if (!shown) {
    Object.assign(line, { id, className: "problem" });
    line.setAttribute("role", "status");
    area.after(line);
    area.setAttribute("aria-describedby", `${area.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
  }
  line.textContent = sentence;
  line.hidden = !sentence;
  area.setAttribute("aria-invalid", String(Boolean(sentence)));
  area.closest(".field")?.classList.toggle("wrong", Boolean(sentence));
}

/** Enter keeps the indentation. Tab stays what it is for: the way to the next field. */
function indent(event) {
  if (event.key !== "Enter") return;
  const area = event.target;
  const before = area.value.slice(0, area.selectionStart);
  const line = before.slice(before.lastIndexOf("\n") + 1);
  const space = /^\s*/.exec(line)[0] + (/[{[]\s*$/.test(line) ? "  " : "");
  event.preventDefault();
  area.setRangeText(`\n${space}`, area.selectionStart, area.selectionEnd, "end");
  area.dispatchEvent(new Event("input", { bubbles: true }));
}
