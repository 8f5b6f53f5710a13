/** Toasts: what somebody should know who is looking at something else. */

import { app } from "../../../scripts/app.js";
import { t } from "../language.js";
import { gainWords, presetWords } from "./words.js";

/** A toast when a run ends, when one is paused for a reason, and when the server says no. */
export function watchForNews(runs) {
  runs.addEventListener("runs", ({ detail: { before, now } }) => {
    if (before === null || now === null || before.state === now.state) return;
    const { state, title, reason } = now;
    if (state === "paused" && reason) say("warn", t("runs.news.paused", { title }), reason);
    if (state === "finished") say("success", t("runs.news.finished", { title }), ended(now));
    if (state === "stopped") say("info", t("runs.news.stopped", { title }), ended(now));
  });
  runs.addEventListener("refused", ({ detail }) => say("error", t("runs.news.refused"), detail));
}

function ended(run) {
  return [gainWords(run), presetWords(run)].filter((line) => line !== "").join("\n");
}

/** Stays until it is closed: a calibration ends when nobody looks. */
function say(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail });
}
