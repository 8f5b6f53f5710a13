/** Opening the panel, and which run it is to show. */

import { app } from "../../../scripts/app.js";

export const TAB_ID = "calibri-watch";
const WATCHED = "Calibri.Watched"; // the run that this browser tab shows, kept over a reload

/** Says `chosen` when another run is to be shown. */
export const choice = new EventTarget();

let open = false;

export function isOpen() {
  return open;
}

/** The tab says whether the panel is on the page. */
export function noteOpen(now) {
  open = now;
}

/** The id of the run to show, null where nobody has chosen. */
export function chosen() {
  return sessionStorage.getItem(WATCHED);
}

export function choose(id) {
  sessionStorage.setItem(WATCHED, id);
  choice.dispatchEvent(new Event("chosen"));
}

/** Show the panel, with this run where one is named. */
export async function openPanel(id = null) {
  if (id !== null) choose(id);
  if (!open) await togglePanel();
}

/** Show the panel, or hide it. */
export function togglePanel() {
  return app.extensionManager.command.execute(`Workspace.ToggleBottomPanelTab.${TAB_ID}`);
}
