/** How far the search steps: its sigma, and the same measured on its candidates. */

import { t } from "../language.js";
import { count, number } from "../numbers.js";
import { Chart } from "./chart.mjs";
import { TRAINING } from "./theme.mjs";

const LINE = { points: { show: false }, stroke: TRAINING };

export function makeStepChart() {
  const chart = new Chart(t("watch.step"), {
    values: (value) => number(value, 3),
    series: [
      { label: t("watch.generation") },
      { ...LINE, label: t("watch.measured"), stroke: `${TRAINING}80`, width: 1 },
      // Known of what has run since ComfyUI's start.
      { ...LINE, label: t("watch.sigma"), width: 2 },
    ],
  });
  return { element: chart.element, show: (rows) => chart.show(columns(rows), words(rows)) };
}

function columns(rows) {
  return ["generation", "step", "sigma"].map((name) => rows.map((row) => row[name]));
}

function words(rows) {
  const last = rows.at(-1);
  if (!last || last.step === null) return t("watch.nothing");
  const value = number(last.sigma ?? last.step, 3);
  return t("watch.stepWords", { number: count(last.generation), value });
}
