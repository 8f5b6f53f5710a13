/** Two presets bar by bar: one picture, and in numbers where they differ most. */

import { button, made } from "../elements.js";
import { t } from "../language.js";
import { number, signed } from "../numbers.js";
import { drawPair, drawPreset, member } from "./bars.mjs";
import { presets } from "./presets.mjs";
import { dress } from "./style.mjs";
import { kindWords, rewardsOf, titleOf } from "./words.mjs";

const MOST = 10; // differences in numbers

/** Show two presets beside each other until the dialog is closed. */
export async function showComparison(one, other) {
  const wholes = await Promise.all([presets.whole(one), presets.whole(other)]);
  if (wholes.includes(null)) return;
  dress();
  const dialog = made("dialog", "calibri-dialog calibri-comparison");
  dialog.setAttribute("aria-label", t("library.comparison.title"));
  dialog.append(made("h2", "", t("library.comparison.title")), legend(one, 0), legend(other, 1));
  const [first, second] = wholes.map((whole) => member(whole));
  const shared = [...first.keys()].filter((name) => second.has(name));
  // Of two kinds of model, or by block and by gate: no bar of one belongs beside one of the other.
  dialog.append(...(shared.length > 0 ? [drawPair(first, second)] : wholes.map(drawPreset)));
  if (wholes.some((whole) => whole.values.length > 1)) dialog.append(made("p", "", t("library.comparison.members")));
  dialog.append(shared.length > 0 ? table(shared, first, second) : made("p", "", t("library.comparison.apart")));
  dialog.append(button({ label: t("library.close") }, () => dialog.close()));
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(dialog);
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve));
  dialog.remove();
}

function legend(preset, index) {
  const box = made("div", "calibri-legend");
  const mark = made("span", `calibri-mark calibri-of-${index}`);
  const words = made("div");
  words.append(made("strong", "", titleOf(preset)));
  for (const line of [kindWords(preset), ...rewardsOf(preset)]) words.append(made("p", "", line));
  box.append(mark, words);
  return box;
}

/** The coefficients that differ most, and how much. */
function table(names, first, second) {
  const sorted = names
    .map((name) => ({ name, difference: second.get(name) - first.get(name) }))
    .sort((one, other) => Math.abs(other.difference) - Math.abs(one.difference))
    .filter(({ difference }) => difference !== 0);
  if (sorted.length === 0) return made("p", "", t("library.comparison.same"));
  const table = made("table");
  table.append(made("caption", "", t("library.comparison.furthest")));
  const rows = sorted.slice(0, MOST).map(({ name, difference }) => {
    const row = made("tr");
    const head = made("th", "", name);
    head.scope = "row";
    const values = [number(first.get(name), 3), number(second.get(name), 3), signed(difference, 3)];
    row.append(head, ...values.map((value) => made("td", "", value)));
    return row;
  });
  const body = made("tbody");
  body.append(...rows);
  table.append(body);
  return table;
}
