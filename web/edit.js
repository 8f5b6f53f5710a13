/**
 * Bars on Edit Calibri: its coefficients to be dragged. What is done there is written into the
 * node's `rules`, so that a workflow carries it and draws the same without this page.
 */

import { app } from "../../scripts/app.js";
import { SETTINGS, VIEW } from "./settings.js";

const EDIT = "CalibriEdit";
const HEIGHT = 210; // pixels

app.registerExtension({
  name: "Calibri.Edit",
  settings: [SETTINGS[VIEW]],
  nodeCreated(node) {
    if (node.comfyClass !== EDIT) return;
    const element = document.createElement("div");
    const widget = node.addDOMWidget("calibri_bars", "calibri-bars", element, {
      serialize: false, // neither in the workflow nor in the prompt
      getMinHeight: () => HEIGHT,
    });
    widget.serialize = false;
    import("./edit/editor.mjs").then(({ Editor }) => new Editor(node, element));
  },
});
