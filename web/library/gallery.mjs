/** The sidebar tab: a card for each preset, to be searched, filtered, compared and put into the graph. */

import { app } from "../../../scripts/app.js";
import { button, made, setText } from "../elements.js";
import { t } from "../language.js";
import { drawLegend } from "./bars.mjs";
import { PresetCard } from "./card.mjs";
import { showComparison } from "./compare.mjs";
import { addLoader, addText, before, choose, fileWidgets, linkTo, LOAD, modelsAtHand } from "./graph.mjs";
import { askForText, showText } from "./paste.mjs";
import { plain, presets, say } from "./presets.mjs";
import { dress } from "./style.mjs";
import { drawTrash } from "./trash.mjs";
import { searchable, titleOf } from "./words.mjs";

const root = made("section", "calibri-library");
root.setAttribute("aria-label", t("library.title"));
root.tabIndex = -1;
const search = made("input");
const model = made("select");
const choosing = made("p", "calibri-choosing");
const found = made("p", "calibri-found");
const list = made("ul");
const broken = made("ul", "calibri-broken");
const trash = made("details", "calibri-trash");
const picker = made("input");

const cards = new Map();
let compared = []; // the names of two presets at most
let target = null; // the node that a preset is chosen for
let isShown = false;
let takesFocus = false;

const ACTIONS = { use, compare, copyText, rename, discard };

export function open(element) {
  dress();
  if (root.parentElement !== element) element.replaceChildren(root);
  isShown = true;
  if (takesFocus) root.focus({ preventScroll: true });
  takesFocus = false;
  offerModels();
  presets.load(model.value);
}

export function close() {
  isShown = false;
  chooseFor(null);
}

/** The keyboard goes on at its beginning when it is next on the page. */
export function takeFocus() {
  takesFocus = true;
}

export function isOpen() {
  return isShown;
}

/** The next preset that is chosen goes to this node; null: it gets a node of its own. */
export function chooseFor(node) {
  target = node;
  setText(choosing, node === null ? "" : t("library.choosingFor", { title: node.title, id: node.id }));
  choosing.hidden = node === null;
  show();
}

function build() {
  choosing.hidden = true;
  search.type = "search";
  search.placeholder = t("library.search");
  search.setAttribute("aria-label", t("library.search"));
  search.addEventListener("input", show);
  model.setAttribute("aria-label", t("library.forModel"));
  model.addEventListener("change", () => presets.load(model.value));
  // What is loaded may have changed since.
  model.addEventListener("focus", offerModels);
  picker.type = "file";
  picker.accept = ".safetensors";
  picker.multiple = true;
  picker.hidden = true;
  picker.addEventListener("change", upload);
  found.setAttribute("role", "status");
  trash.append(made("summary", "", t("library.trash.title")));
  trash.addEventListener("toggle", () => trash.open && drawTrash(trash));
  const tools = made("div", "calibri-buttons");
  tools.append(
    button({ icon: "pi pi-upload", label: t("library.upload"), hint: t("library.uploadHint") }, () => picker.click()),
    button({ icon: "pi pi-clipboard", label: t("library.paste"), hint: t("library.pasteHint") }, paste),
  );
  root.append(made("h2", "", t("library.title")), choosing, search, model, tools, picker, found, drawLegend(), list, broken, trash);
  // Without it nothing can be dropped here.
  root.addEventListener("dragover", (event) => event.preventDefault());
  presets.addEventListener("changed", show);
}

function offerModels() {
  const chosen = model.value;
  const names = modelsAtHand();
  const options = [["", t("library.anyModel")], ...names.map((name) => [name, name])];
  model.replaceChildren(
    ...options.map(([value, label]) => {
      const option = made("option", "", label);
      option.value = value;
      return option;
    }),
  );
  model.value = names.includes(chosen) ? chosen : "";
}

function show() {
  const words = search.value.toLowerCase().split(/\s+/);
  const fitting = presets.all.filter(
    (preset) => preset.fits !== false && words.every((word) => searchable(preset).includes(word)),
  );
  const names = new Set(fitting.map(({ name }) => name));
  const focused = focusedButton();
  for (const [name, card] of cards) {
    const preset = fitting.find((each) => each.name === name);
    if (preset && JSON.stringify(preset) === JSON.stringify(card.preset)) continue;
    card.remove();
    cards.delete(name);
  }
  compared = compared.filter((name) => names.has(name));
  fitting.forEach((preset, place) => {
    if (!cards.has(preset.name)) cards.set(preset.name, new PresetCard(preset, ACTIONS));
    const card = cards.get(preset.name);
    card.show(t(target?.comfyClass === LOAD ? "library.useInNode" : "library.addToGraph"), compared.includes(preset.name));
    if (list.children[place] !== card.element) list.insertBefore(card.element, list.children[place] ?? null);
  });
  if (focused !== null && !root.contains(document.activeElement))
    (cards.get(focused.name)?.element.querySelector(`[data-action="${focused.action}"]`) ?? search).focus();
  setText(found, presets.modelError || t("library.found", { count: fitting.length, all: presets.all.length }));
  broken.replaceChildren(...presets.broken.map(({ error }) => made("li", "", error)));
}

/** Which card's button has the focus, so that the card's successor can have it. */
function focusedButton() {
  const focused = document.activeElement;
  const card = root.contains(focused) ? focused.closest(".calibri-preset") : null;
  return card && { name: card.dataset.preset, action: focused.dataset.action };
}

function use({ preset }) {
  if (target?.comfyClass === LOAD && target.graph) {
    for (const widget of fileWidgets(target)) choose(widget, preset.name);
    say("success", t("library.used", { name: preset.name, title: target.title }));
  } else {
    linkTo(addLoader(preset.name, target?.graph ? before(target) : undefined), target);
    say("success", t("library.added", { name: preset.name }));
  }
  chooseFor(null);
}

async function compare({ preset }) {
  const { name } = preset;
  compared = compared.includes(name) ? compared.filter((each) => each !== name) : [...compared.slice(-1), name];
  show();
  if (compared.length < 2) return;
  const pair = compared.map((each) => presets.named(each));
  compared = [];
  await showComparison(...pair);
  show();
}

async function copyText({ preset }) {
  const text = await presets.text(preset);
  if (text === null) return;
  try {
    await navigator.clipboard.writeText(text);
    say("success", t("library.copied", { title: titleOf(preset) }));
  } catch {
    showText(titleOf(preset), text); // no clipboard without https or focus
  }
}

async function rename({ preset }) {
  const to = await app.extensionManager.dialog.prompt({
    title: t("library.rename"),
    message: t("library.renameQuestion"),
    defaultValue: plain(preset.name),
  });
  if (to && to !== plain(preset.name)) await presets.rename(preset, to);
}

async function discard({ preset }) {
  const question = {
    ...{ title: t("library.discardTitle"), message: t("library.discardQuestion") },
    ...{ itemList: [preset.name], type: "delete" },
  };
  if (!(await app.extensionManager.dialog.confirm(question))) return;
  const gone = await presets.discard(preset);
  if (gone === null) return;
  say("info", t("library.discarded", { name: preset.name, folder: gone.folder }), 10_000);
  if (trash.open) drawTrash(trash);
  search.focus(); // the card that had the focus is gone
}

async function upload() {
  for (const file of picker.files) {
    const added = await presets.upload(file);
    if (added !== null) say("success", t("library.kept", { name: added.preset.name }));
  }
  picker.value = "";
}

async function paste() {
  const wish = await askForText();
  if (wish === null) return;
  if (wish.as === "node") addText(wish.text);
  else {
    const added = await presets.addText(wish.text);
    if (added !== null) say("success", t("library.kept", { name: added.preset.name }));
  }
}

build();
