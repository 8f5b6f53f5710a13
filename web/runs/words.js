/** What the page says of a run, for people who look rather than read. */

import { t } from "../language.js";
import { count, decimals, duration, number, signed } from "../numbers.js";

// What runs first, what has ended last.
const ORDER = ["running", "waiting", "interrupted", "paused", "rests", "stopped", "finished"];

// What a run that runs can be told to do just now; "done" is the moment before it is finished.
const PHASES = ["validation", "generation", "selection", "confirmation", "judging"];

/** For sorting. */
export function byState(run, other) {
  return ORDER.indexOf(run.state) - ORDER.indexOf(other.state);
}

/** By state, those in one state in the order in which they were begun. */
export function inOrder(run, other) {
  return byState(run, other) || run.created - other.created;
}

/** What can be asked of a run, in these states. */
export const ACTIONS = {
  pause: {
    label: t("runs.pause.label"),
    hint: t("runs.pause.hint"),
    icon: "pi pi-pause",
    states: ["running", "waiting"],
  },
  resume: {
    label: t("runs.resume.label"),
    hint: t("runs.resume.hint"),
    icon: "pi pi-play",
    states: ["paused", "interrupted", "stopped", "finished"],
  },
  finish: {
    label: t("runs.finish.label"),
    hint: t("runs.finish.hint"),
    icon: "pi pi-flag",
    states: ["running", "waiting", "paused", "interrupted", "stopped"],
  },
  stop: {
    label: t("runs.stop.label"),
    hint: t("runs.stop.hint"),
    icon: "pi pi-stop",
    states: ["running", "waiting", "paused", "interrupted"],
  },
};

// What can be asked of a run that this ComfyUI does not work on in the background.
const OF_OTHERS = ["finish", "stop"];

/** Shown as its icon alone. */
export const DELETE = {
  label: t("runs.delete.label"),
  hint: t("runs.delete.hint"),
  icon: "pi pi-trash",
};

/** Whether an action makes sense: a search that went its whole way has nothing to resume. */
export function fits(action, run) {
  if (run.where !== "background") return OF_OTHERS.includes(action) && run.state === "running";
  const whole = run.state === "finished" && run.generation >= run.generations;
  return ACTIONS[action].states.includes(run.state) && !whole;
}

/** What a button does: whoever works on the run is told otherwise. */
export function hintOf(action, run) {
  const isOfOthers = action === "stop" && fits(action, run) && run.where !== "background";
  return isOfOthers ? t(`runs.stop.${run.where}`) : ACTIONS[action].hint;
}

/** What somebody works on is stopped first. */
export function canBeDeleted(run) {
  return run.where === "background" || run.where === "nowhere";
}

/** Why it rests, or who works on it. */
export function reasonWords(run) {
  return run.state === "running" && run.where === "background" ? "" : (run.reason ?? "");
}

/** A button's name for a screen reader, which hears many alike. */
export function buttonWords(label, run) {
  return t("runs.buttonOf", { label, title: run.title });
}

export function stateWords(run) {
  return t(`runs.state.${run.state}`);
}

/** How far a run is, and what it does just now. */
export function progressWords(run) {
  const values = { number: count(run.generation), all: count(run.generations) };
  if (run.state !== "running" || !PHASES.includes(run.phase)) return t("runs.generation", values);
  return t("runs.generationDoing", { ...values, doing: t(`runs.phase.${run.phase}`) });
}

/** Images drawn, and the time that is left or was spent. */
export function workWords(run) {
  const running = run.state === "running";
  const seconds = running ? run.seconds_left : run.seconds; // unknown of other processes
  const parts = [];
  // `total` is what the search may need at most.
  if (run.total || run.images) {
    const values = { count: count(run.images), all: count(run.total) };
    const isWhole = run.state === "finished" || !run.total;
    parts.push(t(isWhole ? "runs.images" : "runs.imagesOf", values));
  }
  if (seconds > 0) parts.push(t(running ? "runs.left" : "runs.worked", { time: duration(seconds) }));
  return parts.join(t("runs.and"));
}

/** What the best so far gains over the plain model, with its 95 % interval; "" before it is known. */
export function gainWords(run) {
  if (!run.gain) return "";
  const { mean, low, high } = run.gain;
  if (mean === 0 && low === 0 && high === 0)
    return t(run.state === "finished" ? "runs.noPreset" : "runs.noGain");
  const places = decimals(low, high);
  const [gain, least, most] = [mean, low, high].map((value) => signed(value, places));
  const values = { gain, low: least, high: most };
  if (!Number.isFinite(run.reward)) return t("runs.gain", values);
  const [before, after] = [run.plain, run.reward].map((value) => number(value, places));
  return t("runs.gainFrom", { ...values, before, after });
}

/** How long a prompt of the user's had to wait for the run; "" where none did. */
export function waitWords(run) {
  return run.longest_wait > 0 ? t("runs.waited", { seconds: run.longest_wait.toFixed(1) }) : "";
}

export function presetWords(run) {
  return run.preset ? t("runs.preset", { name: run.preset }) : "";
}

export function deleteQuestion(run) {
  return {
    title: t("runs.delete.title"),
    message: t("runs.delete.message"),
    itemList: [run.title],
    type: "delete",
  };
}
