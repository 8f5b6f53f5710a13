/** A small dialog at the foot of the page: presets that a workflow asks for and that are not here. */

import { button, made } from "../elements.js";
import { t } from "../language.js";
import { plain } from "./presets.mjs";
import { dress } from "./style.mjs";

const dialog = made("dialog", "calibri-offer calibri-missing");
dialog.setAttribute("aria-labelledby", "calibri-missing-title");
const title = made("h2", "", t("library.missing.title"));
title.id = "calibri-missing-title";
const list = made("ul");
const close = button({ label: t("library.close") }, hide);
// Undo and other tabs open a workflow again: what was closed stays so, but another preset of the
// same name is named.
const dismissed = new Set();
dialog.append(title, list, close);
dialog.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
// A live region, so that a screen reader says what appears in it.
const region = made("div");
region.setAttribute("aria-live", "polite");
region.append(dialog);
document.body.append(region);
dress();

/** Show these, or nothing. `use` takes the entry whose preset is here under another name. */
export function show(missing, use) {
  const shown = missing.filter((entry) => !dismissed.has(keyOf(entry)));
  list.replaceChildren(...shown.map((entry) => item(entry, use)));
  dialog.open = shown.length > 0;
}

function item(entry, use) {
  const { name, about, like } = entry;
  const element = made("li");
  element.dataset.key = keyOf(entry);
  const words = made("div");
  words.append(made("strong", "", about.title || plain(name)));
  const where = [
    t("library.missing.file", { name }),
    about.base_model && t("library.foundOn", { model: about.base_model }),
    about.created && t("library.missing.created", { day: about.created.slice(0, 10) }),
    about.origin && t("library.origin", { origin: about.origin }),
    about.licence && t("library.licence", { licence: about.licence }),
    like ? t("library.missing.like", { name: like.name }) : t("library.missing.drop"),
  ];
  words.append(...where.filter((line) => line).map((line) => made("span", "", line)));
  element.append(words);
  if (like)
    element.append(
      button({ label: t("library.missing.use") }, () => {
        use(entry);
        element.remove();
        if (list.children.length === 0) hide();
      }),
    );
  return element;
}

function keyOf({ name, about }) {
  return `${name} ${about.digest}`;
}

function hide() {
  for (const { dataset } of list.children) dismissed.add(dataset.key);
  dialog.open = false;
}
