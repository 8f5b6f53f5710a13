/**
 * The presets as this page knows them: the server's list, and what can be done to them.
 *
 * A `changed` event follows whatever changes the list. What fails ends in a toast with the server's
 * sentence, and in null.
 */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { t } from "../language.js";

const LISTED = "/calibri/presets";
const TRASH = "/calibri/trash";

class Presets extends EventTarget {
  #model = "";
  #wholes = new Map(); // by name and digest
  all = [];
  broken = [];
  modelError = "";
  isKnown = false;

  /** Read the list; `model` is a model's file, to be told which presets fit it. */
  async load(model = this.#model) {
    this.#model = model;
    const query = model ? `?model=${encodeURIComponent(model)}` : "";
    const answer = await ask(LISTED + query);
    if (answer === null || model !== this.#model) return;
    this.all = answer.presets;
    this.broken = answer.broken;
    this.modelError = answer.model_error;
    this.isKnown = true;
    this.dispatchEvent(new Event("changed"));
  }

  /** The preset of a file, as a node names it; Windows writes "\\" where others write "/". */
  named(name) {
    return this.all.find((preset) => plain(preset.name) === plain(name));
  }

  /** With its coefficients: `names`, `values` of each member, `weights`. */
  async whole(preset) {
    const key = `${preset.digest} ${preset.name}`;
    if (!this.#wholes.has(key)) this.#wholes.set(key, ask(at(preset)));
    const found = await this.#wholes.get(key);
    if (found === null) this.#wholes.delete(key);
    return found;
  }

  async text(preset) {
    return (await ask(at(preset, "/text")))?.text ?? null;
  }

  /** Where its picture is, and its file. */
  pictureOf(preset) {
    return api.apiURL(`${at(preset, "/thumbnail")}?${preset.digest}`);
  }
  fileOf(preset) {
    return api.apiURL(at(preset, "/file"));
  }

  /** Keep a file among the presets: `{preset, is_new}`. */
  async upload(file) {
    const body = new FormData();
    body.append("file", file, file.name);
    return this.#after(await ask(LISTED, { method: "POST", body }));
  }

  async addText(text) {
    return this.#after(await ask(`${LISTED}/text`, sent("POST", { text })));
  }

  async rename(preset, to) {
    return this.#after(await ask(at(preset, "/rename"), sent("POST", { to })));
  }

  /** To the trash: `{id, folder}`. */
  async discard(preset) {
    return this.#after(await ask(at(preset), sent("DELETE", {})));
  }

  async discarded() {
    return (await ask(TRASH))?.discarded ?? [];
  }

  async restore(id) {
    return this.#after(await ask(`${TRASH}/${encodeURIComponent(id)}/restore`, sent("POST", {})));
  }

  async #after(answer) {
    if (answer !== null) await this.load();
    return answer;
  }
}

export const presets = new Presets();

/** A file's name without its folders' spelling and its ending. */
export function plain(name) {
  return name.replaceAll("\\", "/").replace(/\.safetensors$/, "");
}

export function say(severity, detail, life = 6000) {
  app.extensionManager.toast.add({ severity, summary: t("library.title"), detail, life });
}

function at(preset, rest = "") {
  return `${LISTED}/${encodeURIComponent(preset.name)}${rest}`;
}

function sent(method, value) {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function ask(path, request = {}) {
  try {
    const response = await api.fetchApi(path, { cache: "no-store", ...request });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    say("error", answer.error ?? `${response.status} ${response.statusText}`);
  } catch (error) {
    say("error", t("library.silent", { reason: error.message }));
  }
  return null;
}
