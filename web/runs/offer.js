/**
 * The offer to resume: a small dialog at the foot of the page with the runs that rest, until each is
 * resumed or "Later" is pressed. It takes no focus away and blocks nothing.
 */

import { t } from "../language.js";
import { chosen, OFFER } from "../settings.js";
import { runs } from "./runs.js";
import { ACTIONS, buttonWords, progressWords, stateWords } from "./words.js";

const RESTING = ["paused", "interrupted"];
const LATER = "Calibri.Later"; // ids and states that this browser tab was told "Later" about

const dialog = document.createElement("dialog");
dialog.className = "calibri-offer";
dialog.setAttribute("aria-labelledby", "calibri-offer-title");
const title = document.createElement("h2");
title.id = "calibri-offer-title";
title.textContent = t("runs.offer.title");
const list = document.createElement("ul");
const later = document.createElement("button");
later.type = "button";
later.textContent = t("runs.offer.later");
dialog.append(title, list, later);

const offered = new Map();

/** Offer what rests when the page has started, and what a restart of ComfyUI has interrupted. */
export function offerToResume() {
  // A live region, so that a screen reader says what appears in it.
  const region = document.createElement("div");
  region.setAttribute("aria-live", "polite");
  region.append(dialog);
  document.body.append(region);
  later.addEventListener("click", putOff);
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Escape") putOff();
  });
  runs.addEventListener("runs", ({ detail: { before, now } }) => {
    if (now === null || !RESTING.includes(now.state)) return drop((now ?? before)?.id);
    // Who has just pressed Pause, or reads a toast about it, needs no offer.
    const newlyPaused = before !== null && now.state === "paused" && !offered.has(now.id);
    if (!newlyPaused && !wasPutOff(now) && chosen(OFFER)) offer(now);
  });
}

function offer(run) {
  if (!offered.has(run.id)) offered.set(run.id, { run, element: makeItem(run.id) });
  const item = offered.get(run.id);
  item.run = run;
  item.element.querySelector("strong").textContent = run.title;
  item.element.querySelector("span").textContent = [
    run.reason || `${stateWords(run)}.`,
    `${progressWords(run)}.`,
  ].join(" ");
  item.element
    .querySelector("button")
    .setAttribute("aria-label", buttonWords(ACTIONS.resume.label, run));
  dialog.open = true;
}

function makeItem(id) {
  const element = document.createElement("li");
  const resume = document.createElement("button");
  resume.type = "button";
  resume.textContent = ACTIONS.resume.label;
  resume.addEventListener("click", () => runs.act(id, "resume"));
  const words = document.createElement("div");
  words.append(document.createElement("strong"), document.createElement("span"));
  element.append(words, resume);
  list.append(element);
  return element;
}

function drop(id) {
  const item = offered.get(id);
  if (item === undefined) return;
  item.element.remove();
  offered.delete(id);
  if (offered.size === 0) dialog.open = false;
}

function putOff() {
  const marks = [...offered.values()].map(({ run }) => mark(run));
  sessionStorage.setItem(LATER, JSON.stringify([...new Set([...putOffMarks(), ...marks])]));
  for (const id of [...offered.keys()]) drop(id);
}

function wasPutOff(run) {
  return putOffMarks().includes(mark(run));
}

/** A run that has worked since rests anew, and another of the same name is another. */
function mark(run) {
  return `${run.id} ${run.created} ${run.state} ${run.slices}`;
}

function putOffMarks() {
  try {
    return JSON.parse(sessionStorage.getItem(LATER)) ?? [];
  } catch {
    return [];
  }
}
