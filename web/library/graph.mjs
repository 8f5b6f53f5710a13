/** The graph as the gallery needs it: nodes that load presets, models that are loaded, links. */

import { app } from "../../../scripts/app.js";

export const LOAD = "CalibriLoadPreset";
export const IN_WORKFLOW = "CalibriPresetInWorkflow";
const APPLY = "CalibriApply";
const FILE = "preset_name";
// What loaders call the file of a model.
const MODEL_WIDGETS = ["unet_name", "ckpt_name"];

/** Every node of the workflow, those within subgraphs too. */
export function everyNode(graph = app.rootGraph ?? app.graph) {
  const nodes = [...graph.nodes];
  return nodes.flatMap((node) => (node.subgraph ? [node, ...everyNode(node.subgraph)] : [node]));
}

/** The files of the models that the workflow loads, each once. */
export function modelsAtHand() {
  const widgets = everyNode().flatMap((node) => node.widgets ?? []);
  const named = widgets.filter((widget) => MODEL_WIDGETS.includes(widget.name));
  return [...new Set(named.map((widget) => widget.value).filter((value) => typeof value === "string"))];
}

export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * What names the file of a Load Calibri Preset: its own widget or, where that is an input of the
 * subgraph that it is in, those of the nodes that the subgraph stands for. None where another node
 * names it.
 */
export function fileWidgets(node) {
  const { graph } = node;
  const input = node.inputs?.find(({ name }) => name === FILE);
  if (input?.link === null || input?.link === undefined) return [widgetOf(node, FILE)];
  const link = graph.getLink(input.link);
  if (!link || link.origin_id !== graph.inputNode?.id) return [];
  const { name } = graph.inputs[link.origin_slot];
  const holders = everyNode().filter((each) => each.subgraph === graph);
  return holders.map((each) => widgetOf(each, name)).filter((widget) => widget !== undefined);
}

/** Choose a preset's file, also one that the list does not have yet. */
export function choose(widget, name) {
  const listed = widget.options.values ?? [];
  if (Array.isArray(listed) && !listed.includes(name)) widget.options.values = [...listed, name];
  widget.value = name;
  widget.callback?.(name);
  redraw();
}

/** A Load Calibri Preset with this file, at `position` of the canvas or in its middle. */
export function addLoader(name, position = middle()) {
  const node = add(LOAD, position);
  choose(widgetOf(node, FILE), name);
  return node;
}

/** A preset within the workflow. */
export function addText(text, position = middle()) {
  const node = add(IN_WORKFLOW, position);
  widgetOf(node, "text").value = text;
  redraw();
  return node;
}

/** Put the preset of `node` to where an Apply Calibri waits for one. */
export function linkTo(node, target) {
  if (target?.comfyClass !== APPLY || target.graph !== node.graph) return;
  const input = target.inputs.findIndex((each) => each.name === "preset");
  if (input !== -1) node.connect(0, target, input);
}

/** Left of a node, where what feeds it is looked for. */
export function before(node, width = 320) {
  return [node.pos[0] - width, node.pos[1]];
}

/** Set another node in the place of one, with what follows it. */
export function replace(node, kind, fill) {
  const graph = node.graph;
  const links = (node.outputs[0].links ?? []).map((id) => graph.getLink(id));
  const other = window.LiteGraph.createNode(kind);
  graph.add(other);
  other.pos = [...node.pos];
  fill(other);
  for (const { target_id: id, target_slot: slot, parentId: reroute } of links)
    if (id === graph.outputNode?.id) graph.outputNode.slots[slot].connect(other.outputs[0], other, reroute);
    else other.connect(0, graph.getNodeById(id), slot, reroute);
  graph.remove(node);
  redraw();
  return other;
}

/** A point of the page as one of the canvas. */
export function onCanvas(x, y) {
  return app.clientPosToCanvasPos([x, y]);
}

export function redraw() {
  (app.rootGraph ?? app.graph).setDirtyCanvas(true, true);
}

function add(kind, position) {
  const node = window.LiteGraph.createNode(kind);
  const graph = app.canvas.graph ?? app.graph;
  graph.add(node);
  node.pos = [...position];
  app.canvas.selectNode(node);
  return node;
}

function middle() {
  const { left, top, width, height } = app.canvas.canvas.getBoundingClientRect();
  return onCanvas(left + width / 2, top + height / 2);
}
