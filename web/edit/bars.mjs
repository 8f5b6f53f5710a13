/**
 * A row of bars, each a slider: dragged, or moved with the keyboard. What is being done shows at
 * once and is told when it is done, so that one gesture is one step for undo.
 *
 * Up and down move by 0.01, page up and down by 0.1, home and end to the bounds; left and right go
 * to the next bar, delete resets, enter goes to where a number is typed. Shift makes the drag ten times finer.
 */

import { made } from "../elements.js";
import { number } from "../numbers.js";

const PLAIN = 1;
const STEP = 0.01;
const PAGE = 0.1;
const FINE = 0.1; // of the way that the pointer goes
const SNAP = 0.012; // this close is meant to be the plain model

export class Bars {
  element = made("div", "calibri-sliders");
  #bounds;
  #tell;
  #groups = [];
  #sliders = [];
  #values = [];
  #current = 0; // the bar that the tab key comes to
  #dragged = null;
  #typed = null; // the bar whose keys are not told yet

  /** `tell` has `focus(place, value)`, `done(place, value)`, `reset(place)` and `enter(place)`. */
  constructor(bounds, label, tell) {
    [this.#bounds, this.#tell] = [bounds, tell];
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", label);
    this.element.addEventListener("pointerdown", (event) => this.#grab(event));
    this.element.addEventListener("pointermove", (event) => this.#drag(event));
    this.element.addEventListener("pointerup", () => this.#drop(true));
    this.element.addEventListener("pointercancel", () => this.#drop(false));
    this.element.addEventListener("keydown", (event) => this.#press(event));
    this.element.addEventListener("keyup", () => this.#settle());
    this.element.addEventListener("focusout", () => this.#settle());
    this.element.addEventListener("focusin", ({ target }) => this.#come(this.#sliders.indexOf(target)));
  }

  /** Bars for these groups (`views.mjs`) at these values; sliders stay where the groups do. */
  show(groups, values) {
    const same = groups.length === this.#groups.length &&
      groups.every(({ pattern }, i) => pattern === this.#groups[i].pattern);
    if (!same) this.#build(groups);
    this.#groups = groups;
    if (this.#dragged !== null || this.#typed !== null) return; // a gesture is not disturbed
    this.#values = [...values];
    this.#sliders.forEach((_, place) => this.#paint(place));
  }

  /** The value shown of a bar. */
  value(place) {
    return this.#values[place];
  }

  focus(place) {
    this.#sliders[place]?.focus();
  }

  #build(groups) {
    this.#current = 0;
    let block = null;
    this.#sliders = groups.map(({ pattern, kind, block: number_, stream }, place) => {
      const slider = made("div", `calibri-slider calibri-${stream}`);
      slider.setAttribute("role", "slider");
      slider.setAttribute("aria-orientation", "vertical");
      slider.setAttribute("aria-label", pattern);
      slider.setAttribute("aria-valuemin", this.#bounds[0]);
      slider.setAttribute("aria-valuemax", this.#bounds[1]);
      slider.tabIndex = place === 0 ? 0 : -1;
      slider.title = pattern;
      if (block !== null && block !== kind + number_) slider.classList.add("calibri-next");
      block = kind + number_;
      slider.append(made("span"));
      return slider;
    });
    this.element.replaceChildren(...this.#sliders);
    const [lowest, highest] = this.#bounds;
    const ground = (highest - PLAIN) / (highest - lowest);
    this.element.style.setProperty("--calibri-ground", `${100 * ground}%`);
  }

  #paint(place) {
    const [lowest, highest] = this.#bounds;
    const [value, slider] = [this.#values[place], this.#sliders[place]];
    const percent = (v) => (100 * (highest - v)) / (highest - lowest);
    const [top, bottom] = [percent(Math.max(value, PLAIN)), percent(Math.min(value, PLAIN))];
    slider.firstChild.style.top = `${top}%`;
    slider.firstChild.style.height = `${Math.max(bottom - top, 1)}%`;
    slider.setAttribute("aria-valuenow", value.toFixed(3));
    slider.setAttribute("aria-valuetext", number(value, 2));
  }

  #come(place) {
    if (place === -1) return;
    this.#sliders[this.#current].tabIndex = -1;
    this.#current = place;
    this.#sliders[place].tabIndex = 0;
    this.#tell.focus(place, this.#values[place]);
  }

  #set(place, value) {
    const [lowest, highest] = this.#bounds;
    this.#values[place] = Math.min(highest, Math.max(lowest, Math.round(value / STEP) * STEP));
    this.#paint(place);
    this.#tell.focus(place, this.#values[place]);
  }

  #grab(event) {
    const place = this.#sliders.indexOf(event.target.closest(".calibri-slider"));
    if (place === -1 || event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation(); // neither the node nor the canvas is dragged
    this.#sliders[place].focus();
    this.element.setPointerCapture(event.pointerId);
    const height = this.#sliders[place].getBoundingClientRect().height;
    const from = this.#values[place];
    this.#dragged = { place, height, y: event.clientY, value: from, from };
  }

  #drag(event) {
    if (this.#dragged === null) return;
    const { place, height, y, value } = this.#dragged;
    const [lowest, highest] = this.#bounds;
    const way = ((y - event.clientY) / height) * (highest - lowest);
    const moved = value + way * (event.shiftKey ? FINE : 1);
    Object.assign(this.#dragged, { y: event.clientY, value: moved });
    this.#set(place, Math.abs(moved - PLAIN) < SNAP ? PLAIN : moved);
  }

  #drop(isMeant) {
    if (this.#dragged === null) return;
    const { place, from } = this.#dragged;
    this.#dragged = null;
    if (!isMeant) this.#set(place, from);
    else if (this.#values[place] !== from)
      this.#tell.done(place, this.#values[place]);
  }

  #press(event) {
    const place = this.#sliders.indexOf(event.target);
    if (place === -1 || event.ctrlKey || event.metaKey || event.altKey) return;
    const [value, [lowest, highest]] = [this.#values[place], this.#bounds];
    const values = {
      ArrowUp: value + STEP,
      ArrowDown: value - STEP,
      PageUp: value + PAGE,
      PageDown: value - PAGE,
      Home: lowest,
      End: highest,
    };
    const neighbours = { ArrowLeft: place - 1, ArrowRight: place + 1 };
    if (event.key in values) {
      this.#typed = place;
      this.#set(place, values[event.key]);
    } else if (event.key in neighbours) {
      this.#sliders[neighbours[event.key]]?.focus();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.#tell.reset(place);
    } else if (event.key === "Enter") {
      this.#tell.enter(place);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // ComfyUI has keys of its own
  }

  /** Keys that are held down are one gesture. */
  #settle() {
    if (this.#typed === null) return;
    const place = this.#typed;
    this.#typed = null;
    this.#tell.done(place, this.#values[place]);
  }
}
