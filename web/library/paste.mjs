/** Presets as text: a dialog to paste one into, and one to copy from where there is no clipboard. */

import { button, made } from "../elements.js";
import { t } from "../language.js";
import { dress } from "./style.mjs";

/** Ask for a preset's text: `{text, as}`, as "file" or "node"; null where nothing is wanted. */
export function askForText() {
  return new Promise((resolve) => {
    const { dialog, area, buttons } = make(t("library.paste"), t("library.pasteQuestion"));
    let wish = null;
    const end = (as) => () => {
      if (area.value.trim() === "") return area.focus();
      wish = { text: area.value, as };
      dialog.close();
    };
    buttons.append(
      button({ label: t("library.pasteFile") }, end("file")),
      button({ label: t("library.pasteNode") }, end("node")),
      button({ label: t("library.close") }, () => dialog.close()),
    );
    dialog.addEventListener("close", () => resolve(wish));
    dialog.showModal();
  });
}

/** A text to be copied by hand. */
export function showText(title, text) {
  const { dialog, area, buttons } = make(title, t("library.copyByHand"));
  area.value = text;
  area.readOnly = true;
  buttons.append(button({ label: t("library.close") }, () => dialog.close()));
  dialog.showModal();
  area.select();
}

function make(title, question) {
  dress();
  const dialog = made("dialog", "calibri-dialog");
  const heading = made("h2", "", title);
  const label = made("label", "", question);
  const area = made("textarea");
  area.rows = 14;
  area.spellcheck = false;
  label.append(area);
  const buttons = made("div", "calibri-buttons");
  dialog.append(heading, label, buttons);
  dialog.setAttribute("aria-label", title);
  // ComfyUI's own keys would act on the graph behind it.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  return { dialog, area, buttons };
}
