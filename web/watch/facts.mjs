/** What a run's numbers say in words: how fast it is, what it still costs, what it has found. */

import { made, setText } from "../elements.js";
import { t } from "../language.js";
import { count, duration } from "../numbers.js";
import { gainWords, presetWords, progressWords, stateWords, waitWords } from "../runs/words.js";

const RECENT = 10; // generations that its speed is measured on

export function makeFacts() {
  const element = made("div", "calibri-facts");
  const list = made("ul");
  // Only what is news is said aloud: a run says something every second.
  const news = made("p", "calibri-gain");
  news.setAttribute("aria-live", "polite");
  element.append(news, list);
  return {
    element,
    show(run, rows) {
      setText(news, [stateWords(run), gainWords(run)].filter(Boolean).join(": "));
      const lines = [
        progressWords(run),
        costWords(run),
        speedWords(rows),
        run.reason,
        presetWords(run),
        waitWords(run),
      ].filter(Boolean);
      while (list.children.length > lines.length) list.lastChild.remove();
      while (list.children.length < lines.length) list.append(made("li"));
      lines.forEach((line, place) => setText(list.children[place], line));
    },
  };
}

/** What is spent and what is left, in images and in time. */
function costWords(run) {
  const spent = { count: count(run.images), time: duration(run.seconds ?? 0) };
  if (run.state === "finished" || !run.total) return t("watch.spent", spent);
  const left = { count: count(Math.max(0, run.total - run.images)) };
  if (!run.seconds_left)
    return [t("watch.spent", spent), t("watch.leftImages", left)].join(t("watch.dot"));
  const time = duration(run.seconds_left);
  return [t("watch.spent", spent), t("watch.left", { ...left, time })].join(t("watch.dot"));
}

function speedWords(rows) {
  const recent = rows.slice(-RECENT).filter((row) => row.seconds > 0);
  const seconds = recent.reduce((sum, row) => sum + row.seconds, 0);
  if (seconds === 0) return "";
  const speed = recent.reduce((sum, row) => sum + row.images, 0) / seconds;
  return t("watch.speed", { count: speed.toPrecision(2) });
}
