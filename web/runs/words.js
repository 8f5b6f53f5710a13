/** What the page says of a run: every word of it is here. */

export const TITLE = "Calibri runs";
export const TAB_HINT = "Calibrations in the background";
export const EMPTY =
  "No calibration yet. Add the node Calibrate (background) to a workflow, or open the template " +
  "“Calibri - calibrate in the background”.";

const STATES = {
  running: "Running",
  waiting: "Waiting",
  interrupted: "Interrupted",
  paused: "Paused",
  stopped: "Stopped",
  finished: "Finished",
};

/** What runs first, what has ended last; else in the order in which they came. */
export function byState(run, other) {
  const order = Object.keys(STATES);
  return order.indexOf(run.state) - order.indexOf(other.state);
}

const PHASES = {
  validation: "measuring on held-out prompts",
  generation: "searching",
  selection: "comparing the finalists",
  confirmation: "measuring the gain",
  judging: "asking the other rewards",
};

/** What can be asked of a run, in these states. */
export const ACTIONS = {
  pause: {
    label: "Pause",
    hint: "Stop drawing for now. Nothing is lost.",
    icon: "pi pi-pause",
    states: ["running", "waiting"],
  },
  resume: {
    label: "Resume",
    hint: "Go on where it stopped.",
    icon: "pi pi-play",
    states: ["paused", "interrupted", "stopped", "finished"],
  },
  finish: {
    label: "Finish",
    hint: "End with this generation, then compare the best and measure the gain.",
    icon: "pi pi-flag",
    states: ["running", "waiting", "paused", "interrupted", "stopped"],
  },
  stop: {
    label: "Stop",
    hint: "End now: the best so far becomes the preset, and the models are let go.",
    icon: "pi pi-stop",
    states: ["running", "waiting", "paused", "interrupted"],
  },
};

/** Shown as its icon alone. */
export const DELETE = {
  label: "Delete",
  hint: "Delete: move the run to the trash.",
  icon: "pi pi-trash",
};

export const OFFER = {
  title: "Calibrations to go on with",
  later: "Later",
  resume: "Resume",
};

/** Whether an action makes sense: a search that went its whole way has nothing to resume. */
export function fits(action, run) {
  const whole = run.state === "finished" && run.generation >= run.generations;
  return ACTIONS[action].states.includes(run.state) && !whole;
}

export function stateWords(run) {
  return STATES[run.state] ?? run.state;
}

/** How far a run is, and what it does just now. */
export function progressWords(run) {
  const generations = `Generation ${count(run.generation)} of ${count(run.generations)}`;
  const doing = run.state === "running" ? PHASES[run.phase] : undefined;
  return doing ? `${generations}: ${doing}` : generations;
}

/** Images drawn, and the time that is left or was spent. */
export function workWords(run) {
  const running = run.state === "running";
  const seconds = running ? run.seconds_left : run.seconds;
  // `total` is what the search may need at most.
  const of = run.total && run.state !== "finished" ? ` of ${count(run.total)}` : "";
  const images = run.total ? `${count(run.images)}${of} images` : "";
  const time = seconds > 0 ? `${duration(seconds)} ${running ? "left" : "of work"}` : "";
  return [images, time].filter((part) => part !== "").join(", ");
}

/** What the best so far gains over the plain model, with its 95 % interval; "" before it is known. */
export function gainWords(run) {
  if (!run.gain) return "";
  const { mean, low, high } = run.gain;
  if (mean === 0 && low === 0 && high === 0)
    return run.state === "finished" ? "Nothing better than the plain model was found: no preset" : "No gain yet";
  const places = decimals(low, high);
  const [gain, least, most] = [mean, low, high].map((value) => signed(value, places));
  const values = Number.isFinite(run.reward)
    ? `: ${number(run.plain, places)} → ${number(run.reward, places)}`
    : "";
  return `Gain ${gain} [${least}, ${most}]${values}`;
}

/** How long a prompt of the user's had to wait for the run; "" where none did. */
export function waitWords(run) {
  return run.longest_wait > 0
    ? `Your prompts waited ${run.longest_wait.toFixed(1)} s at most.`
    : "";
}

export function presetWords(run) {
  return run.preset ? `Preset: ${run.preset}` : "";
}

/** A length of time in its two largest units. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => whole >= size);
  if (first === -1) return "0 s";
  let left = whole;
  const parts = [];
  for (const [size, name] of units.slice(first, first + 2)) {
    const amount = Math.floor(left / size);
    left -= amount * size;
    if (amount > 0) parts.push(`${amount} ${name}`);
  }
  return parts.join(" ");
}

export const NEWS = {
  paused: (run) => `“${run.title}” is paused`,
  finished: (run) => `“${run.title}” is finished`,
  stopped: (run) => `“${run.title}” is stopped`,
  refused: "Calibri",
};

export const NO_RUN = {
  pause: "No calibration is running.",
  resume: "No calibration waits to be resumed.",
  finish: "No calibration could be finished.",
  stop: "No calibration could be stopped.",
  several: "There are several calibrations: choose one in the tab.",
};

export function deleteQuestion(run) {
  return {
    title: "Delete a calibration",
    message: "Its journal goes to the trash of the runs folder. Presets and pictures stay.",
    itemList: [run.title],
    type: "delete",
  };
}

function count(value) {
  return Number(value ?? 0).toLocaleString("en");
}

/** Two digits of the larger of two numbers. */
function decimals(low, high) {
  const order = Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high))));
  return Math.min(8, Math.max(0, 1 - order));
}

function number(value, places) {
  return value.toFixed(places).replace("-", "−");
}

function signed(value, places) {
  return `${value < 0 ? "" : "+"}${number(value, places)}`;
}
