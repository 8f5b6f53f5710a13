/** A line chart over generations, by uPlot, in the page's colours and as large as its place. */

import uPlot from "../vendor/uplot/uPlot.esm.mjs";
import { made } from "../elements.js";
import { colour, onThemeChange } from "./theme.mjs";

const HEIGHT = 190; // pixels, without the legend
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]; // there is no generation 1.5
const FONT = "12px sans-serif";

export class Chart {
  #plot = null;
  #data = null;
  #options;
  #place = made("div", "calibri-plot");

  /** `series` and `bands` are uPlot's, without the generations; `values` writes a number. */
  constructor(title, { series, bands = [], values }) {
    this.#options = { series, bands, values };
    this.element = made("figure", "calibri-chart");
    this.#place.setAttribute("role", "img");
    this.element.append(made("figcaption", "", title), this.#place);
    new ResizeObserver(() => this.#fit()).observe(this.#place);
    onThemeChange(() => this.#renew());
  }

  /** `data` are columns, generations first; `words` say what is to be seen. */
  show(data, words) {
    this.#data = data;
    this.#place.setAttribute("aria-label", words);
    if (this.#plot === null) this.#renew();
    else this.#plot.setData(data);
  }

  #renew() {
    if (this.#data === null || this.#place.clientWidth === 0) return;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#described(), this.#data, this.#place);
  }

  #fit() {
    const width = this.#place.clientWidth;
    if (this.#plot === null) this.#renew();
    else if (width > 0 && width !== this.#plot.width)
      this.#plot.setSize({ width, height: HEIGHT });
  }

  #described() {
    const { series, bands, values } = this.#options;
    const axis = {
      stroke: colour("--fg-color", "#888"),
      font: FONT,
      grid: { stroke: colour("--border-color", "#8884"), width: 1 },
      ticks: { stroke: colour("--border-color", "#8884"), width: 1 },
    };
    const written = (_, value) => (value === null || value === undefined ? "–" : values(value));
    return {
      width: this.#place.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false } },
      cursor: { y: false, drag: { setScale: true, x: true, y: false } },
      axes: [
        { ...axis, space: 60, incrs: WHOLE },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => values(tick)) },
      ],
      series: [
        { label: this.#options.series[0].label },
        ...series.slice(1).map((each) => ({
          ...each,
          stroke: each.stroke ?? colour("--fg-color", "#888"),
          value: written,
        })),
      ],
      bands,
    };
  }
}
