/** The sidebar tab: a card for each run, what runs first. */

import { made } from "../elements.js";
import { t } from "../language.js";
import { RunCard } from "./card.js";
import { runs } from "./runs.js";
import { inOrder } from "./words.js";

const TITLE = t("runs.title");

const root = made("section", "calibri-runs");
root.setAttribute("aria-label", TITLE);
const empty = made("p", "", t("runs.empty"));
const list = made("ul");
root.append(made("h2", "", TITLE), empty, list);

const cards = new Map();
let open = false;

export const TAB = {
  id: "calibri-runs",
  icon: "pi pi-chart-line",
  title: TITLE,
  tooltip: t("runs.tabHint"),
  type: "custom",
  // ComfyUI renders an open tab again whenever it likes.
  render(element) {
    if (root.parentElement !== element) element.replaceChildren(root);
    if (open) return;
    open = true;
    show();
    runs.load();
    runs.follow(TAB.id, true);
  },
  destroy() {
    open = false;
    runs.follow(TAB.id, false);
  },
};

export function tabIsOpen() {
  return open;
}

runs.addEventListener("runs", () => {
  if (open) show();
});

function show() {
  const sorted = runs.all.sort(inOrder);
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
