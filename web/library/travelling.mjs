/**
 * Presets of workflows that travel: a node that loads one remembers which it was and where it came
 * from, so that where it is missing it can be named, or found under another name.
 */

import { t } from "../language.js";
import { choose, everyNode, fileWidgets, IN_WORKFLOW, LOAD, replace, widgetOf } from "./graph.mjs";
import { plain, presets, say } from "./presets.mjs";

const PROPERTY = "calibri_preset"; // of a node, in the workflow's JSON
const TOLD = ["title", "family", "base_model", "origin", "licence", "created", "digest"];

let reading = null;

/** The list of presets, once for this page unless something changes it. */
export function readPresets() {
  if (presets.isKnown) return Promise.resolve();
  reading ??= presets.load().finally(() => {
    reading = null;
  });
  return reading;
}

/** Let a node write down what its preset is whenever the workflow is saved, also into a picture. */
export function remember(node) {
  readPresets();
  const before = node.onSerialize;
  node.onSerialize = function (saved) {
    before?.call(this, saved);
    const name = fileWidgets(this)[0]?.value;
    const preset = typeof name === "string" ? presets.named(name) : undefined;
    if (preset === undefined) return;
    const told = Object.fromEntries(TOLD.map((key) => [key, preset[key]]).filter(([, value]) => value));
    this.properties[PROPERTY] = { name: preset.name, ...told };
    saved.properties = { ...saved.properties, [PROPERTY]: this.properties[PROPERTY] };
  };
}

/** Show the presets that the workflow just opened asks for and that are not here. */
export async function nameMissing() {
  await presets.load();
  if (!presets.isKnown) return;
  const missing = everyNode()
    .filter((node) => node.comfyClass === LOAD)
    .flatMap((node) => fileWidgets(node).map((widget) => ({ node, widget, name: widget.value })))
    // A link that leads out of the folder is not listed by the server, and loads all the same.
    .filter(({ widget, name }) => typeof name === "string" && !isHere(widget, name))
    .map((entry) => ({ ...entry, ...describe(entry.node, entry.name) }));
  (await import("./missing.mjs")).show(missing, use);
}

/** Whether a name can be loaded, or is none: an input without a choice has a sentence there. */
function isHere(widget, name) {
  const offered = widget.options?.values;
  return (
    !name.endsWith(".safetensors") ||
    presets.named(name) !== undefined ||
    presets.broken.some((file) => plain(file.name) === plain(name)) ||
    (Array.isArray(offered) && offered.includes(name))
  );
}

/** Turn a node that loads a file into one that has the preset in it. */
export async function putIntoWorkflow(node) {
  await readPresets();
  const names = new Set(fileWidgets(node).map((widget) => widget.value));
  if (names.size !== 1) return say("error", t("library.namedElsewhere"));
  const preset = presets.named([...names][0]);
  const text = preset === undefined ? null : await presets.text(preset);
  if (text === null) {
    if (preset === undefined) say("error", t("library.missing.gone"));
    return;
  }
  replace(node, IN_WORKFLOW, (other) => {
    widgetOf(other, "text").value = text;
  });
}

function use(entry) {
  choose(entry.widget, entry.like.name);
}

/** What a node remembers of its preset, and a preset here that is the same under another name. */
function describe(node, name) {
  const told = node.properties?.[PROPERTY];
  const kept = told !== null && typeof told === "object" && plain(String(told.name)) === plain(name) ? told : {};
  const about = Object.fromEntries(TOLD.map((key) => [key, String(kept[key] ?? "").slice(0, 300)]));
  return { about, like: presets.all.find((preset) => preset.digest === about.digest) };
}
