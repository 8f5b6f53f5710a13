/** What a user may choose in ComfyUI's settings, below "Calibri". Its words are in `settings.json`. */

import { app } from "../../scripts/app.js";
import { settingWords, t } from "./language.js";

export const OFFER = "Calibri.Runs.OfferToResume";
export const OPEN = "Calibri.Runs.OpenWhenOneBegins";
export const ASK = "Calibri.Presets.AskWhenDropped";
export const VIEW = "Calibri.Presets.FirstView";

const GROUPS = { Runs: "Calibrations", Presets: "Calibri presets" };
const VIEWS = ["block", "layer", "gate"];

/** As an extension gives them to ComfyUI; what is off by default is what most will not want. */
export const SETTINGS = {
  [OFFER]: described(OFFER, { type: "boolean", defaultValue: true }),
  [OPEN]: described(OPEN, { type: "boolean", defaultValue: false }),
  [ASK]: described(ASK, { type: "boolean", defaultValue: false }),
  [VIEW]: described(VIEW, {
    type: "combo",
    defaultValue: "gate",
    options: VIEWS.map((value) => ({ value, text: t(`edit.views.${value}`) })),
  }),
};

/** What was chosen. */
export function chosen(id) {
  return app.extensionManager.setting.get(id) ?? SETTINGS[id].defaultValue;
}

function described(id, rest) {
  const category = ["Calibri", GROUPS[id.split(".")[1]], id];
  return { id, category, name: settingWords(id, "name"), tooltip: settingWords(id, "tooltip"), ...rest };
}
