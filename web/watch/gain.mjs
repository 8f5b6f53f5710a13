/** What the search has gained on held-out prompts, with its interval; the plain model is at 0. */

import { t } from "../language.js";
import { count, short } from "../numbers.js";
import { Chart } from "./chart.mjs";
import { VALIDATION } from "./theme.mjs";

const HIDDEN = { points: { show: false }, spanGaps: true };
const faint = { ...HIDDEN, stroke: `${VALIDATION}80`, width: 0.5 };

export function makeGainChart() {
  const chart = new Chart(t("watch.gain"), {
    values: short,
    series: [
      { label: t("watch.generation") },
      { ...faint, label: t("watch.low") },
      { ...faint, label: t("watch.high") },
      {
        label: t("watch.gained"),
        stroke: VALIDATION,
        width: 2,
        spanGaps: true,
        points: { size: 5, fill: VALIDATION },
      },
      { ...HIDDEN, label: t("watch.plain"), dash: [6, 4], width: 1 },
    ],
    bands: [{ series: [2, 1], fill: `${VALIDATION}30` }],
  });
  return { element: chart.element, show: (rows) => chart.show(columns(rows), words(rows)) };
}

function columns(rows) {
  const part = (name) => rows.map((row) => row.gain?.[name] ?? null);
  const generations = rows.map((row) => row.generation);
  return [generations, part("low"), part("high"), part("mean"), rows.map(() => 0)];
}

function words(rows) {
  const last = rows.findLast((row) => row.gain);
  if (!last) return t("watch.nothing");
  const [mean, low, high] = ["mean", "low", "high"].map((name) => short(last.gain[name]));
  return t("watch.gainWords", { number: count(last.generation), mean, low, high });
}
