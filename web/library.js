/**
 * Presets in ComfyUI's page: a gallery in the sidebar, buttons on the nodes that take presets, files
 * that are dropped, and what a workflow says of a preset that is not here. What is only needed when
 * something is opened is only then loaded (`library/*.mjs`).
 */

import { app } from "../../scripts/app.js";
import { commandLabel, t } from "./language.js";
import { ASK, SETTINGS } from "./settings.js";

const TAB_ID = "calibri-presets";
const SHOW = "Calibri.ShowPresets";
const LOAD = "CalibriLoadPreset";
const APPLY = "CalibriApply";
const SUFFIX = ".safetensors";
const LARGEST = 16 * 2 ** 20; // bytes of a preset; what is larger is none of ours

let hasAsked = false;

const gallery = () => import("./library/gallery.mjs");
const dropping = () => import("./library/dropping.mjs");
const travelling = () => import("./library/travelling.mjs");

const TAB = {
  id: TAB_ID,
  icon: "pi pi-sliders-h",
  title: t("library.title"),
  tooltip: t("library.tabHint"),
  type: "custom",
  async render(element) {
    (await gallery()).open(element);
  },
  async destroy() {
    (await gallery()).close();
  },
};

app.registerExtension({
  name: "Calibri.Library",
  commands: [
    { id: SHOW, label: commandLabel(SHOW), icon: "pi pi-sliders-h", function: showOrHide },
  ],
  keybindings: [{ combo: { key: "P", shift: true }, commandId: SHOW }],
  settings: [SETTINGS[ASK]],
  menuCommands: [{ path: ["Extensions", "Calibri"], commands: [SHOW] }],
  setup() {
    app.extensionManager.registerSidebarTab(TAB);
    // Before ComfyUI's own listener, which knows no presets.
    window.addEventListener("drop", take, { capture: true });
  },
  nodeCreated(node) {
    if (![LOAD, APPLY].includes(node.comfyClass)) return;
    const browse = node.addWidget("button", t("library.browse"), null, () => showFor(node), {
      serialize: false, // neither in the workflow nor in the prompt
    });
    browse.serialize = false;
    if (node.comfyClass === LOAD)
      travelling().then(({ remember }) => remember(node));
  },
  // Waited for: what a node remembers of its preset must not change after the workflow is open.
  async beforeConfigureGraph(graph) {
    if (JSON.stringify(graph).includes(`"${LOAD}"`)) await (await travelling()).readPresets();
  },
  async afterConfigureGraph() {
    // Also where a workflow loads none: what is said of the one before is no longer so.
    const asks = hasNode(app.rootGraph ?? app.graph, LOAD);
    if (asks || hasAsked) (await travelling()).nameMissing();
    hasAsked = asks;
  },
  getNodeMenuItems(node) {
    if (node.comfyClass !== LOAD) return [];
    const callback = async () => (await travelling()).putIntoWorkflow(node);
    return [{ content: t("library.putIntoWorkflow"), callback }];
  },
});

/** The command and its key; the keyboard goes where it opens. */
async function showOrHide() {
  const { isOpen, takeFocus } = await gallery();
  if (isOpen()) return toggle();
  takeFocus();
  await showFor(null);
}

function toggle() {
  return app.extensionManager.command.execute(`Workspace.ToggleSidebarTab.${TAB_ID}`);
}

/** Open the gallery to choose a preset for a node, or to look around. */
async function showFor(node) {
  const { chooseFor, isOpen } = await gallery();
  chooseFor(node);
  if (!isOpen()) await toggle();
}

/** Whether it is ours can be told only after the event has ended, so the event is held back. */
async function take(event) {
  const files = [...(event.dataTransfer?.files ?? [])];
  const perhaps = files.some((file) => file.name.endsWith(SUFFIX) && file.size <= LARGEST);
  if (!perhaps || event.calibriHasLooked) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  (await dropping()).dropped(event, files);
}

function hasNode(graph, kind) {
  const nodes = [...graph.nodes];
  return nodes.some((node) => node.comfyClass === kind || (node.subgraph && hasNode(node.subgraph, kind)));
}
