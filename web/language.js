/**
 * What the page says, in the language of ComfyUI's settings: `t("runs.title")`.
 *
 * The words are in `locales/<language>/main.json` below "calibri", in `commands.json` and in
 * `settings.json`. ComfyUI gathers every pack's files and serves them at /i18n; they are read once,
 * before whatever imports this module is run. What a language lacks is said in English.
 */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const ENGLISH = "en";

/** ComfyUI's language, "zh" for example; numbers are written as it writes them. */
export const language = app.extensionManager?.setting.get("Comfy.Locale") ?? ENGLISH;

const gathered = await gather();
// "pt-BR" is met by "pt" where there is no better.
const spoken = [language, language.split("-")[0], ENGLISH]
  .map((name) => gathered[name])
  .filter((words) => words !== undefined);

/** The words of a key, with `{name}` replaced by `values.name`; the key itself where there are none. */
export function t(key, values = {}) {
  const text = find(["calibri", ...key.split(".")]) ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** What a command is called; ComfyUI itself looks the same words up by its id. */
export function commandLabel(id) {
  return find(["commands", id.replaceAll(".", "_"), "label"]) ?? id;
}

/** What a setting is called, or its tooltip; ComfyUI looks the same words up. */
export function settingWords(id, kind) {
  return find(["settings", id.replaceAll(".", "_"), kind]) ?? id;
}

function find(path) {
  for (const words of spoken) {
    const found = path.reduce((branch, part) => branch?.[part], words);
    if (typeof found === "string") return found;
  }
  return undefined;
}

async function gather() {
  try {
    const response = await api.fetchApi("/i18n");
    return response.ok ? await response.json() : {};
  } catch {
    return {}; // the page says itself that ComfyUI does not answer
  }
}
