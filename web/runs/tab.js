/** The sidebar tab: a card for each run, what runs first. */

import { RunCard } from "./card.js";
import { runs } from "./runs.js";
import { byState, EMPTY, TAB_HINT, TITLE } from "./words.js";

const root = document.createElement("section");
root.className = "calibri-runs";
root.setAttribute("aria-label", TITLE);
const heading = document.createElement("h2");
heading.textContent = TITLE;
const empty = document.createElement("p");
empty.textContent = EMPTY;
const list = document.createElement("ul");
root.append(heading, empty, list);

const cards = new Map();
let open = false;

export const TAB = {
  id: "calibri-runs",
  icon: "pi pi-chart-line",
  title: TITLE,
  tooltip: TAB_HINT,
  type: "custom",
  // ComfyUI renders an open tab again whenever it likes.
  render(element) {
    if (root.parentElement !== element) element.replaceChildren(root);
    if (open) return;
    open = true;
    show();
    runs.load();
    runs.follow(true);
  },
  destroy() {
    open = false;
    runs.follow(false);
  },
};

export function tabIsOpen() {
  return open;
}

runs.addEventListener("runs", () => {
  if (open) show();
});

function show() {
  const sorted = runs.all.sort(byState);
  empty.hidden = sorted.length > 0;
  const shown = new Set(sorted.map((run) => run.id));
  for (const [id, card] of cards) {
    if (shown.has(id)) continue;
    card.element.remove();
    cards.delete(id);
  }
  sorted.forEach((run, place) => {
    if (!cards.has(run.id)) cards.set(run.id, new RunCard(runs));
    const card = cards.get(run.id);
    card.show(run);
    put(card.element, place);
  });
}

/** Moved only where it must be, and with the focus that it had. */
function put(element, place) {
  if (list.children[place] === element) return;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  list.insertBefore(element, list.children[place] ?? null);
  focused?.focus();
}
