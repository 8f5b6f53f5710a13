/** One preset in the gallery: its bars, its pictures, what it gained, and what can be done with it. */

import { button, made, setText } from "../elements.js";
import { t } from "../language.js";
import { drawPreset } from "./bars.mjs";
import { plain, presets } from "./presets.mjs";
import { kindWords, rewardsOf, samplingWords, titleOf } from "./words.mjs";

export class PresetCard {
  #actions;
  #compare;
  #use;
  #seen;
  #bars = made("div", "calibri-bars-place");
  preset;

  /** `actions`: use, compare, copyText, rename, discard; each takes the card. */
  constructor(preset, actions) {
    this.preset = preset;
    this.#actions = actions;
    this.element = made("li", "calibri-preset");
    this.element.dataset.preset = preset.name;
    this.element.append(made("h3", "", titleOf(preset)), made("p", "calibri-name", plain(preset.name)));
    if (preset.thumbnail) this.element.append(this.#picture());
    this.element.append(this.#bars, this.#lines(), this.#buttons());
    // Coefficients are asked for when somebody looks.
    this.#seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.#drawBars();
    });
    this.#seen.observe(this.element);
  }

  /** What the first button is for, and whether the preset is one of those to compare. */
  show(useLabel, isCompared) {
    setText(this.#use.lastChild, useLabel);
    this.#use.setAttribute("aria-label", `${useLabel}: ${titleOf(this.preset)}`);
    this.#compare.setAttribute("aria-pressed", String(isCompared));
  }

  remove() {
    this.#seen.disconnect();
    this.element.remove();
  }

  async #drawBars() {
    this.#seen.disconnect();
    const whole = await presets.whole(this.preset);
    if (whole !== null) this.#bars.replaceChildren(drawPreset(whole));
  }

  #picture() {
    const figure = made("figure", "calibri-thumbnail");
    const picture = made("img");
    picture.src = presets.pictureOf(this.preset);
    picture.loading = "lazy";
    picture.alt = t("library.pictureOf", { title: titleOf(this.preset) });
    figure.append(picture, made("figcaption", "", t("library.picture")));
    return figure;
  }

  #lines() {
    const preset = this.preset;
    const lines = made("div", "calibri-lines");
    const found = samplingWords(preset);
    const words = [
      kindWords(preset),
      ...rewardsOf(preset),
      found && t("library.foundWith", { settings: found }),
      preset.base_model && t("library.foundOn", { model: preset.base_model }),
      preset.origin && t("library.origin", { origin: preset.origin }),
      preset.licence && t("library.licence", { licence: preset.licence }),
    ].filter((line) => line);
    lines.append(...words.map((line) => made("p", "", line)));
    if (preset.fits) lines.append(made("p", "calibri-fits", t("library.fits")));
    return lines;
  }

  #buttons() {
    const box = made("div", "calibri-buttons");
    this.#use = this.#button("use", "pi pi-plus", t("library.addToGraph"));
    this.#compare = this.#button("compare", "pi pi-chart-bar", t("library.compare"));
    box.append(this.#use, this.#compare, this.#button("copyText", "pi pi-copy", t("library.copyText")));
    const download = made("a", "calibri-button", t("library.download"));
    download.href = presets.fileOf(this.preset);
    download.download = "";
    box.append(download);
    if (this.preset.yours)
      box.append(
        this.#button("rename", "pi pi-pencil", t("library.rename")),
        this.#button("discard", "pi pi-trash", t("library.discard")),
      );
    return box;
  }

  #button(action, icon, label) {
    const made = button({ icon, label }, () => this.#actions[action](this));
    made.dataset.action = action;
    made.setAttribute("aria-label", `${label}: ${titleOf(this.preset)}`);
    return made;
  }
}
