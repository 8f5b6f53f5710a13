/** Reward by generation: how the candidates are spread, held-out prompts, the plain model. */

import { t } from "../language.js";
import { count, short } from "../numbers.js";
import { Chart } from "./chart.mjs";
import { TRAINING, VALIDATION } from "./theme.mjs";

const NONE = { points: { show: false } };
const faint = (stroke) => ({ ...NONE, stroke, width: 0.5 });

export function makeRewardChart() {
  const chart = new Chart(t("watch.reward"), {
    values: short,
    series: [
      { label: t("watch.generation") },
      { ...faint(`${TRAINING}80`), label: t("watch.worst") },
      { ...faint(`${TRAINING}80`), label: t("watch.best") },
      { ...NONE, label: t("watch.mean"), stroke: TRAINING, width: 1.5 },
      {
        label: t("watch.validation"),
        stroke: VALIDATION,
        width: 2,
        spanGaps: true,
        points: { size: 5, fill: VALIDATION },
      },
      { ...NONE, label: t("watch.plain"), dash: [6, 4], width: 1 },
    ],
    bands: [{ series: [2, 1], fill: `${TRAINING}30` }],
  });
  return { element: chart.element, show: (rows) => chart.show(columns(rows), words(rows)) };
}

function columns(rows) {
  const plain = rows[0]?.validation ?? null;
  const names = ["generation", "worst", "best", "mean", "validation"];
  return [...names.map((name) => rows.map((row) => row[name])), rows.map(() => plain)];
}

function words(rows) {
  const last = rows.at(-1);
  const validated = rows.findLast((row) => row.validation !== null);
  if (!last || !validated) return t("watch.nothing");
  return t("watch.rewardWords", {
    number: count(last.generation),
    validation: short(validated.validation),
    plain: short(rows[0].validation),
  });
}
