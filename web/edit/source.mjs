/**
 * What the bars begin with: the preset that is edited, before its rules. Of a preset file that is
 * linked directly the server tells it; of anything else the node itself does, when it is executed.
 */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const LOAD = "CalibriLoadPreset";
const PRESET = "preset";

// What executed nodes have told, kept where the page builds a graph's nodes anew, as undo does.
const told = new Map();

/** `{ key, base }`: `base` has granularity, names, values and weights; null where it is not known. */
export async function sourceOf(node) {
  const file = linkedFile(node);
  if (file === null) return { key: placeOf(node), base: told.get(placeOf(node)) ?? null };
  const response = await api.fetchApi(`/calibri/presets/${encodeURIComponent(file)}`, {
    cache: "no-store",
  });
  // A preset behind a link is not the server's to tell of, but the node's once it was executed.
  const base = response.ok ? await response.json() : (told.get(placeOf(node)) ?? null);
  return { key: `file ${file}`, base };
}

/** What the node's execution has told of its preset. */
export function tell(node, base) {
  told.set(placeOf(node), base);
}

/** Names what `sourceOf` would look at, without looking. */
export function sourceKey(node) {
  const file = linkedFile(node);
  return file === null ? placeOf(node) : `file ${file}`;
}

/** Names a node, also after undo has built it anew: a whole graph's own id may be another then. */
export function placeOf(node) {
  const { graph } = node;
  const within = !graph || graph === app.rootGraph ? "" : graph.id;
  return `${app.extensionManager.workflow.activeWorkflow?.path} ${within} ${node.id}`;
}

/** The preset file of a Load Calibri Preset that is linked and names it itself; else null. */
function linkedFile(node) {
  const slot = node.findInputSlot(PRESET);
  const origin = slot === -1 ? null : node.getInputNode(slot);
  if (origin?.comfyClass !== LOAD) return null;
  if (origin.inputs?.some((input) => input.name === "preset_name" && input.link !== null))
    return null;
  return origin.widgets?.find((widget) => widget.name === "preset_name")?.value ?? null;
}
