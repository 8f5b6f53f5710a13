/** Toasts: what somebody should know who is looking at something else. */

import { app } from "../../../scripts/app.js";
import { gainWords, NEWS, presetWords } from "./words.js";

/** A toast when a run ends, when one is paused for a reason, and when the server says no. */
export function watchForNews(runs) {
  runs.addEventListener("runs", ({ detail: { before, now } }) => {
    if (before === null || now === null || before.state === now.state) return;
    if (now.state === "paused" && now.reason) say("warn", NEWS.paused(now), now.reason);
    if (now.state === "finished") say("success", NEWS.finished(now), ended(now));
    if (now.state === "stopped") say("info", NEWS.stopped(now), ended(now));
  });
  runs.addEventListener("refused", ({ detail }) => say("error", NEWS.refused, detail));
}

function ended(run) {
  return [gainWords(run), presetWords(run)].filter((line) => line !== "").join("\n");
}

/** Stays until it is closed: a calibration ends when nobody looks. */
function say(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail });
}
