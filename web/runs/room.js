/** "Run (On Change)" waits for an empty queue: each change makes the calibration leave it. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

/** While the page runs on change, a change ends the slice that runs, as a prompt would. */
export function makeRoomForChanges(runs) {
  api.addEventListener("graphChanged", () => {
    const onChange = app.extensionManager.queueSettings?.mode === "change";
    const makesWay = (run) => run.state === "running" && run.where === "background";
    if (onChange && runs.all.some(makesWay)) runs.makeRoom();
  });
}
