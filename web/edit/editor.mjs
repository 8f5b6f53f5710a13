/** The editor on one Edit Calibri node: its bars, their views, exact entry, and the node's rules. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { button, made, setText } from "../elements.js";
import { t } from "../language.js";
import { number } from "../numbers.js";
import { chosen, VIEW } from "../settings.js";
import { Bars } from "./bars.mjs";
import { applied, changed } from "./rules.mjs";
import { placeOf, sourceKey, sourceOf, tell } from "./source.mjs";
import { groups, mean, moved, viewsOf } from "./views.mjs";

const BOUNDS = [-1, 2]; // of a coefficient
const RULES = "rules";
const UNDO = ["z", "y"];
const PATIENCE = 10_000; // ms that the page may take to build a node anew

const style = made("link");
style.rel = "stylesheet";
style.href = new URL("./edit.css", import.meta.url).href;
document.head.append(style);

// What a node showed last and where its focus was: undo builds nodes anew.
const remembered = new Map();

export class Editor {
  #node;
  #bars;
  #base = null;
  #key = null;
  #groups = [];
  #returns = null; // whether it stands for one that had the keyboard when undo was asked for
  #tools = made("div", "calibri-edit-tools");
  #view = made("select");
  #member = made("select");
  #exact = made("input");
  #message = made("p", "calibri-edit-message");

  constructor(node, element) {
    this.#node = node;
    this.#bars = new Bars(BOUNDS, t("edit.bars"), {
      focus: (at, value) => this.#point(at, value),
      done: (at, value) => this.#move(at, value),
      reset: (at) => this.#reset(this.#groups[at].places),
      enter: () => this.#exact.select(),
    });
    this.#build(element);
    chain(node, "onExecuted", (output) => this.#hear(output));
    chain(node, "onConnectionsChange", () => queueMicrotask(() => this.#look()));
    const rules = this.#rules;
    if (rules) chain(rules, "callback", () => this.#show());
    const changes = () => {
      // It is gone, or was built anew.
      if (!this.#isOnNode) return api.removeEventListener("graphChanged", changes);
      if (sourceKey(node) !== this.#key) this.#look();
      else this.#show();
    };
    api.addEventListener("graphChanged", changes);
    // A workflow that is being opened has its links a moment later.
    queueMicrotask(() => this.#look());
  }

  get #rules() {
    return this.#node.widgets?.find((widget) => widget.name === RULES);
  }

  /** Looked up each time: while a workflow opens, the page still names the one before. */
  get #memory() {
    const place = placeOf(this.#node);
    if (!remembered.has(place))
      remembered.set(place, { view: null, member: 0, focus: null, undone: -PATIENCE });
    return remembered.get(place);
  }

  /** What is linked to the node decides in place of what it holds. */
  get #isLinked() {
    const slot = this.#node.findInputSlot(RULES);
    return slot !== -1 && this.#node.inputs[slot].link !== null;
  }

  #build(element) {
    element.className = "calibri-edit";
    this.#view.setAttribute("aria-label", t("edit.view"));
    this.#member.setAttribute("aria-label", t("edit.member"));
    Object.assign(this.#exact, { type: "number", step: 0.01, min: BOUNDS[0], max: BOUNDS[1] });
    this.#exact.setAttribute("aria-label", t("edit.exact"));
    this.#view.addEventListener("change", () => this.#choose({ view: this.#view.value }));
    this.#member.addEventListener("change", () => this.#choose({ member: this.#member.selectedIndex }));
    this.#exact.addEventListener("change", () => this.#enter());
    // The graph's keys, undo among them, are not meant while a number is typed.
    this.#exact.addEventListener("keydown", (event) => event.stopPropagation());
    const one = button({ label: t("edit.reset"), hint: t("edit.resetHint") }, () => {
      const { focus } = this.#memory;
      const group = this.#groups.find(({ pattern }) => pattern === focus);
      if (group) this.#reset(group.places);
    });
    const all = button({ label: t("edit.resetAll"), hint: t("edit.resetAllHint") }, () =>
      this.#write(""),
    );
    this.#tools.append(this.#view, this.#member, this.#exact, one, all);
    element.append(this.#tools, this.#bars.element, this.#message);
    this.#bars.element.addEventListener("keydown", ({ ctrlKey, metaKey, key }) => {
      if ((ctrlKey || metaKey) && UNDO.includes(key.toLowerCase())) this.#memory.undone = performance.now();
    });
    // The canvas below is neither dragged nor zoomed by what is done here.
    for (const kind of ["pointerdown", "dblclick", "contextmenu"])
      element.addEventListener(kind, (event) => event.stopPropagation());
  }

  #choose(change) {
    Object.assign(this.#memory, change);
    this.#show();
  }

  #hear(output) {
    const [base] = output?.calibri_edit ?? [];
    if (!base) return;
    tell(this.#node, base);
    this.#look();
  }

  async #look() {
    const { key, base } = await sourceOf(this.#node).catch(() => ({ key: null, base: null }));
    [this.#key, this.#base] = [key, base];
    this.#show();
  }

  #show() {
    const { element } = this.#bars;
    const values = this.#base && applied(this.#base, this.#rules?.value ?? "");
    const problem = !this.#base ? "edit.runOnce" : this.#isLinked ? "edit.linked" : "edit.unreadable";
    const works = values !== null && !this.#isLinked;
    this.#tools.hidden = element.hidden = !works;
    if (!works) return setText(this.#message, t(problem));
    this.#returns ??= performance.now() - this.#memory.undone < PATIENCE;
    const views = viewsOf(this.#base.granularity);
    // As chosen in the settings, as far as this preset has it.
    const [first] = [this.#memory.view, chosen(VIEW)].filter((view) => views.includes(view));
    this.#memory.view = first ?? views.at(-1);
    options(this.#view, views.map((view) => [view, t(`edit.views.${view}`)]), this.#memory.view);
    const members = values.map((_, m) => [String(m), t("edit.memberNumber", { number: m + 1 })]);
    this.#memory.member = Math.min(this.#memory.member, members.length - 1);
    options(this.#member, members, String(this.#memory.member));
    this.#member.hidden = members.length === 1;
    this.#groups = groups(this.#base.names, this.#memory.view);
    const shown = values[this.#memory.member];
    this.#bars.show(this.#groups, this.#groups.map(({ places }) => mean(shown, places)));
    const at = this.#groups.findIndex(({ pattern }) => pattern === this.#memory.focus);
    this.#point(Math.max(at, 0), this.#bars.value(Math.max(at, 0)));
    if (this.#returns) this.#refocus(at, performance.now() + PATIENCE);
  }

  /** Say which bar is meant, and its value. */
  #point(at, value) {
    const { pattern } = this.#groups[at];
    this.#memory.focus = pattern;
    if (document.activeElement !== this.#exact) this.#exact.value = value.toFixed(3).replace(/0$/, "");
    setText(this.#message, t("edit.pointed", { name: pattern, value: number(value, 2) }));
  }

  /** After undo the keyboard is where it was, as soon as the page has the node's bars again. */
  #refocus(at, until) {
    const { element } = this.#bars;
    const active = document.activeElement;
    const isElsewhere = active !== document.body && !active.closest(`.${element.className}`);
    if (!isElsewhere) this.#bars.focus(at);
    const isDone = isElsewhere || element.contains(document.activeElement);
    if (isDone || performance.now() > until) this.#returns = false;
    else requestAnimationFrame(() => this.#refocus(at, until));
  }

  /** Whether the node that this was made for is still the graph's. */
  get #isOnNode() {
    return this.#node.graph?.getNodeById(this.#node.id) === this.#node;
  }

  #enter() {
    const value = this.#exact.valueAsNumber;
    const at = this.#groups.findIndex(({ pattern }) => pattern === this.#memory.focus);
    if (at === -1 || Number.isNaN(value)) return this.#show();
    this.#move(at, Math.min(BOUNDS[1], Math.max(BOUNDS[0], value)));
  }

  #move(at, value) {
    const { names } = this.#base;
    const values = applied(this.#base, this.#rules.value);
    const member = values.length > 1 ? this.#memory.member : null;
    const of = values[member ?? 0];
    this.#write(
      changed(this.#base, this.#rules.value, moved(this.#groups[at], of, names, value, member, BOUNDS)),
    );
  }

  /** As the preset has them. */
  #reset(places) {
    const { names, values } = this.#base;
    const member = values.length > 1 ? this.#memory.member : null;
    const prefix = member === null ? "" : `member${member + 1}.`;
    const changes = places.map((place) => ({
      pattern: prefix + names[place],
      value: values[member ?? 0][place],
    }));
    this.#write(changed(this.#base, this.#rules.value, changes));
  }

  /** One step for undo. */
  #write(text) {
    const rules = this.#rules;
    if (rules.value === text) return this.#show();
    app.canvas.emitBeforeChange();
    rules.value = text;
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
    this.#show();
  }
}

/** Do something after what an object's method does anyway. */
function chain(object, method, then) {
  const before = object[method];
  object[method] = function (...values) {
    const result = before?.apply(this, values);
    then(...values);
    return result;
  };
}

/** Built anew only where they differ, which would close the list. */
function options(select, choices, value) {
  const words = choices.map(([, word]) => word).join("\n");
  if ([...select.options].map((option) => option.textContent).join("\n") !== words)
    select.replaceChildren(...choices.map(([choice, word]) => new Option(word, choice)));
  select.value = value;
}
