/**
 * The panel at the foot of the page that follows one calibration. It is loaded when it is first
 * opened: here are only its tab, its command, and what opens it.
 */

import { app } from "../../scripts/app.js";
import { commandLabel, t } from "./language.js";
import { runs } from "./runs/runs.js";
import { chosen, OPEN, SETTINGS } from "./settings.js";
import { isOpen, noteOpen, openPanel, TAB_ID, togglePanel } from "./watch/open.js";

const COMMAND = "Calibri.WatchRun";
const NODES = ["CalibriCalibrate", "CalibriCalibrateBackground"];

const holder = document.createElement("div");
holder.className = "calibri-holder";
let panel = null;
let takesFocus = false; // when it is next on the page

app.registerExtension({
  name: "Calibri.Watch",
  commands: [
    {
      id: COMMAND,
      label: commandLabel(COMMAND),
      icon: "pi pi-chart-line",
      // The command and its key; the keyboard goes where it opens.
      function: () => {
        takesFocus = !isOpen();
        return togglePanel();
      },
    },
  ],
  keybindings: [{ combo: { key: "W", shift: true }, commandId: COMMAND }],
  settings: [SETTINGS[OPEN]],
  menuCommands: [{ path: ["Extensions", "Calibri"], commands: [COMMAND] }],
  bottomPanelTabs: [
    {
      id: TAB_ID,
      title: t("watch.tab"),
      type: "custom",
      // ComfyUI renders an open tab again whenever it likes.
      render(element) {
        if (holder.parentElement !== element) element.replaceChildren(holder);
        if (isOpen()) return;
        noteOpen(true);
        show();
      },
      destroy() {
        noteOpen(false);
        show();
      },
    },
  ],
  setup() {
    runs.addEventListener("runs", ({ detail: { before, now } }) => {
      const begins = runs.isKnown && now?.state === "running" && before?.state !== "running";
      if (begins && now.where !== "elsewhere" && chosen(OPEN)) openPanel(now.id);
    });
  },
  getNodeMenuItems(node) {
    if (!NODES.includes(node.comfyClass)) return [];
    return [{ content: commandLabel(COMMAND), callback: () => openPanel(runOf(node)?.id ?? null) }];
  },
});

/** The run of a node: of those of its name the one that runs, or the newest. */
function runOf(node) {
  const name = node.widgets?.find((widget) => widget.name === "run_name")?.value;
  const named = runs.all.filter(({ id }) => id === name || id.replace(/-\d+$/, "") === name);
  return named.find(({ state }) => state === "running") ?? named.at(-1);
}

async function show() {
  panel ??= import("./watch/panel.mjs").then(({ makePanel }) => makePanel());
  const { element, follow } = await panel;
  if (element.parentElement !== holder) holder.replaceChildren(element);
  follow(isOpen());
  if (takesFocus && isOpen()) element.focus({ preventScroll: true });
  takesFocus = false;
}
