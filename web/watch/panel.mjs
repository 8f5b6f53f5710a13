/** The panel: one run at a time, its controls and numbers, its charts, its pictures. */

import { made } from "../elements.js";
import { t } from "../language.js";
import { runs } from "../runs/runs.js";
import { inOrder } from "../runs/words.js";
import { choice, choose, chosen } from "./open.js";
import { makeControls } from "./controls.mjs";
import { Course } from "./course.mjs";
import { makeFacts } from "./facts.mjs";
import { makeGainChart } from "./gain.mjs";
import { makeHeat } from "./heat.mjs";
import { makePictures } from "./pictures.mjs";
import { makeRewardChart } from "./reward.mjs";
import { makeStepChart } from "./step.mjs";

const FOLLOWER = "calibri-watch";

/** Its element, and `follow(shown)`, which makes it keep up while it is on the page. */
export async function makePanel() {
  await Promise.all([styled("./watch.css"), styled("../vendor/uplot/uPlot.min.css")]);
  const element = made("section", "calibri-watch");
  element.setAttribute("aria-label", t("watch.title"));
  element.tabIndex = -1;
  const label = made("label", "calibri-choice", t("watch.run"));
  const select = made("select");
  label.append(select);
  const empty = made("p", "", t("runs.empty"));
  const controls = makeControls();
  const facts = makeFacts();
  const pictures = makePictures();
  const heat = makeHeat();
  const charts = [makeGainChart(), makeRewardChart(), makeStepChart()];
  const side = made("div", "calibri-side");
  side.append(label, controls.element, facts.element);
  const body = made("div", "calibri-body");
  const [gain, ...others] = charts.map((chart) => chart.element);
  body.append(side, gain, pictures.element, heat.element, ...others);
  element.append(empty, body);

  const courses = new Map();
  let shown = false;
  let asked = ""; // what of the run was known when its course was last asked for

  select.addEventListener("change", () => choose(select.value));
  choice.addEventListener("chosen", () => shown && show());
  runs.addEventListener("runs", ({ detail: { now } }) => {
    if (now === null) courses.clear(); // another run may get the name
    if (shown) show();
  });

  function show() {
    const sorted = runs.all.sort(inOrder);
    const run = sorted.find(({ id }) => id === chosen()) ?? sorted[0];
    empty.hidden = run !== undefined;
    body.hidden = run === undefined;
    if (run === undefined) return;
    list(select, sorted, run.id);
    if (!courses.has(run.id)) courses.set(run.id, new Course(run.id));
    const course = courses.get(run.id);
    course.onchange = () => shown && draw();
    controls.show(run);
    facts.show(run, course.rows);
    const known = [run.id, run.generation, run.best, run.state, run.phase].join(" ");
    if (known !== asked) {
      asked = known;
      draw();
      course.refresh();
    }
  }

  function draw() {
    const run = runs.all.find(({ id }) => id === select.value);
    const course = courses.get(select.value);
    if (!run || !course) return;
    facts.show(run, course.rows);
    for (const chart of charts) chart.show(course.rows);
    heat.show(course.rows, course.coordinates);
    pictures.show(run, course);
  }

  function follow(now) {
    shown = now;
    runs.follow(FOLLOWER, now);
    if (!now) return;
    asked = "";
    show();
    runs.load();
  }

  return { element, follow };
}

/** The runs to choose from; built anew only where they have changed, which would close it. */
function list(select, sorted, id) {
  const titles = sorted.map((run) => run.title);
  const listed = [...select.options].map((option) => option.textContent);
  if (titles.join("\n") !== listed.join("\n"))
    select.replaceChildren(...sorted.map((run) => new Option(run.title, run.id)));
  select.value = id;
}

/** A style sheet of the panel's; it is there when the promise is kept. */
function styled(file) {
  const style = made("link");
  style.rel = "stylesheet";
  style.href = new URL(file, import.meta.url).href;
  const loaded = new Promise((resolve) => {
    style.addEventListener("load", resolve);
    style.addEventListener("error", resolve);
  });
  document.head.append(style);
  return loaded;
}
