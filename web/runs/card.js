/** One run in the list: its state, how far it is, what it gained, and what can be asked of it. */

import { app } from "../../../scripts/app.js";
import { button, made, setText } from "../elements.js";
import { t } from "../language.js";
import { openPanel } from "../watch/open.js";
import {
  ACTIONS,
  buttonWords,
  canBeDeleted,
  DELETE,
  deleteQuestion,
  fits,
  gainWords,
  hintOf,
  presetWords,
  progressWords,
  reasonWords,
  stateWords,
  waitWords,
  workWords,
} from "./words.js";

const WATCH = { label: t("watch.open"), hint: t("watch.openHint"), icon: "pi pi-chart-line" };
const LABELLED = { ...ACTIONS, watch: WATCH, delete: DELETE };

export class RunCard {
  #runs;
  #run = null;
  #buttons = new Map();
  #state = made("span", "calibri-state");
  #title = made("h3");
  #bar = made("progress");
  #lines = made("div", "calibri-lines");

  constructor(runs) {
    this.#runs = runs;
    const head = made("div", "calibri-head");
    head.append(this.#title, this.#state);
    const buttons = made("div", "calibri-buttons");
    for (const [name, action] of Object.entries(ACTIONS))
      buttons.append(this.#button(name, action, () => this.#runs.act(this.#run.id, name)));
    buttons.append(this.#button("watch", WATCH, () => openPanel(this.#run.id)));
    const remove = this.#button("delete", { ...DELETE, label: "" }, () => this.#askToDelete());
    remove.classList.add("calibri-delete");
    buttons.append(remove);
    this.element = made("li", "calibri-run");
    this.element.append(head, this.#bar, this.#lines, buttons);
  }

  show(run) {
    this.#run = run;
    this.element.dataset.run = run.id;
    this.element.dataset.state = run.state;
    setText(this.#title, run.title);
    setText(this.#state, stateWords(run));
    // How many images another process means to draw is not known here.
    const [done, all] = run.total ? [run.images, run.total] : [run.generation, run.generations];
    this.#bar.max = Math.max(1, all ?? 0);
    this.#bar.value = run.state === "finished" ? this.#bar.max : (done ?? 0);
    this.#bar.setAttribute("aria-label", t("runs.progressOf", { title: run.title }));
    this.#showLines([
      progressWords(run),
      workWords(run),
      reasonWords(run),
      gainWords(run),
      presetWords(run),
      waitWords(run),
    ]);
    this.#showButtons(run);
  }

  #showLines(lines) {
    const words = lines.filter((line) => line !== "");
    while (this.#lines.children.length > words.length) this.#lines.lastChild.remove();
    while (this.#lines.children.length < words.length) this.#lines.append(made("p"));
    words.forEach((line, number) => setText(this.#lines.children[number], line));
  }

  #showButtons(run) {
    const buttons = [...this.#buttons.values()];
    const focused = buttons.find((button) => button === document.activeElement);
    for (const [name, button] of this.#buttons) {
      button.hidden = name in ACTIONS ? !fits(name, run) : name === "delete" && !canBeDeleted(run);
      if (name in ACTIONS) button.title = hintOf(name, run);
      const { label } = LABELLED[name];
      button.setAttribute("aria-label", buttonWords(label, run));
    }
    // The button just pressed may be gone: the keyboard stays on this card.
    if (focused?.hidden) buttons.find((button) => !button.hidden)?.focus();
  }

  #button(name, action, press) {
    const element = button(action, press);
    this.#buttons.set(name, element);
    return element;
  }

  async #askToDelete() {
    const run = this.#run;
    if (await app.extensionManager.dialog.confirm(deleteQuestion(run)))
      await this.#runs.remove(run.id);
  }
}
