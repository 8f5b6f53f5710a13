/** Files that were dropped: presets are kept and get a node, everything else is ComfyUI's. */

import { app } from "../../../scripts/app.js";
import { t } from "../language.js";
import { ASK, chosen } from "../settings.js";
import { addLoader, onCanvas } from "./graph.mjs";
import { presets, say } from "./presets.mjs";

const MARK = "calibri"; // in a preset's metadata
const LENGTH_BYTES = 8; // of a .safetensors file's header, at its beginning
const LONGEST_HEADER = 2 ** 20;
const APART = 90; // between the nodes of several files

/** What the event brought; `event` itself has ended by now. */
export async function dropped(event, files) {
  const ours = [];
  for (const file of files) if (await isPreset(file)) ours.push(file);
  const others = files.filter((file) => !ours.includes(file));
  if (others.length > 0) handOn(event, others);
  const onPage = event.target === app.canvas.canvas;
  if (ours.length > 0 && chosen(ASK) && !(await mayKeep(ours))) return;
  for (const [index, file] of ours.entries()) {
    const added = await presets.upload(file);
    if (added === null) continue;
    const [x, y] = onCanvas(event.clientX, event.clientY);
    addLoader(added.preset.name, onPage ? [x, y + index * APART] : undefined);
    const words = added.is_new ? "library.dropped" : "library.droppedAgain";
    say("success", t(words, { name: added.preset.name }));
  }
}

function mayKeep(files) {
  return app.extensionManager.dialog.confirm({
    title: t("library.keepTitle"),
    message: t("library.keepQuestion"),
    itemList: files.map(({ name }) => name),
  });
}

/** Whether a file's header has the mark of Calibri's presets. */
async function isPreset(file) {
  if (!file.name.endsWith(".safetensors")) return false;
  try {
    const begin = await file.slice(0, LENGTH_BYTES).arrayBuffer();
    const length = Number(new DataView(begin).getBigUint64(0, true));
    if (length > LONGEST_HEADER) return false;
    const header = await file.slice(LENGTH_BYTES, LENGTH_BYTES + length).text();
    return MARK in (JSON.parse(header).__metadata__ ?? {});
  } catch {
    return false;
  }
}

/** The same event without our files, for whoever else listens. */
function handOn(event, files) {
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  const { clientX, clientY } = event;
  const again = new DragEvent("drop", {
    ...{ bubbles: true, cancelable: true, clientX, clientY, dataTransfer: transfer },
  });
  again.calibriHasLooked = true;
  event.target.dispatchEvent(again);
}
