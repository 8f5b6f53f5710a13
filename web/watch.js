/**
 * The panel at the foot of the page that follows one calibration. It is loaded when it is first
 * opened: here is only its tab and its command.
 */

import { app } from "../../scripts/app.js";
import { commandLabel, t } from "./language.js";
import { isOpen, noteOpen, openPanel, TAB_ID } from "./watch/open.js";

const COMMAND = "Calibri.WatchRun";

const holder = document.createElement("div");
holder.className = "calibri-holder";
let panel = null;

app.registerExtension({
  name: "Calibri.Watch",
  commands: [
    {
      id: COMMAND,
      label: commandLabel(COMMAND),
      icon: "pi pi-chart-line",
      function: () => openPanel(),
    },
  ],
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
});

async function show() {
  if (panel === null) panel = import("./watch/panel.mjs").then(({ makePanel }) => makePanel());
  const { element, follow } = await panel;
  if (element.parentElement !== holder) holder.replaceChildren(element);
  follow(isOpen());
}
