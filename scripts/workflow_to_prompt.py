"""Turn a workflow as ComfyUI's page saves it into a prompt as ComfyUI's server runs it.

The page does this in the browser when somebody presses Run; here it is done without one, so that
the files in workflows/ run over HTTP as they are. Covered: widgets with their extra values (what
happens to a seed after a run, upload buttons), links, muted and bypassed nodes, reroutes,
primitives and notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MUTED, BYPASSED = 2, 4
NOTES = frozenset({"Note", "MarkdownNote"})
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload")


class WorkflowError(ValueError):
    """The workflow cannot become a prompt; the message names the node."""


def workflow_to_prompt(
    workflow: Mapping[str, Any], object_info: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The prompt for `workflow`: node id -> {"class_type", "inputs", "_meta"}.

    `object_info` is the server's answer to /object_info. WorkflowError for a node type the server
    lacks, for a widget without a value, and for subgraphs.
    """
    graph = _Graph(workflow)
    prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in NOTES or kind in _VIRTUAL or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if kind not in object_info:
            raise WorkflowError(
                f"Node {node['id']} is a {kind!r}, which this ComfyUI does not have: "
                "install the pack it comes from, or replace the node."
            )
        inputs = _widget_values(node, object_info[kind])
        for slot in node.get("inputs") or []:
            source = None if slot.get("link") is None else graph.source(slot["link"])
            if source is not None:
                inputs[slot["name"]] = source
        prompt[str(node["id"])] = {
            "class_type": kind,
            "inputs": inputs,
            "_meta": {"title": node.get("title") or object_info[kind].get("display_name") or kind},
        }
    return prompt


class _Graph:
    """The links of a workflow, followed to the node that computes the value."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links: dict[int, tuple[int, int, str]] = {}
        for link in workflow.get("links") or []:
            if isinstance(link, dict):  # schema version 1
                link = [
                    link[k] for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot")
                ] + [link["type"]]
            self.links[link[0]] = (link[1], link[2], link[5])

    def source(self, link: int) -> Any:
        """[node id, output slot] for what feeds `link`, a primitive's value, or None for
        nothing."""
        origin, slot, kind = self.links[link]
        node = self.nodes.get(origin)
        if node is None:
            raise WorkflowError(
                f"Link {link} comes from {origin}, outside the top level: open the workflow in "
                "ComfyUI, unpack its subgraphs and save it again."
            )
        if node.get("mode", 0) == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return node["widgets_values"][0]
        if node["type"] == "Reroute":
            inner = node["inputs"][0].get("link")
        elif node.get("mode", 0) == BYPASSED:
            inner = _bypass_link(node, slot, kind)
        else:
            return [str(origin), slot]
        return None if inner is None else self.source(inner)


_VIRTUAL = frozenset({"PrimitiveNode", "Reroute"})


def _bypass_link(node: Mapping[str, Any], slot: int, kind: str) -> int | None:
    """The input link a bypassed node passes through: same position first, then same type."""
    inputs = node.get("inputs") or []
    for candidate in [*inputs[slot : slot + 1], *inputs]:
        if candidate["type"] == kind and candidate.get("link") is not None:
            return int(candidate["link"])
    return None


def _widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Input name -> value for the widgets of a node, from its saved values."""
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        return {name: saved[name] for name, _, _ in _widgets(info) if name in saved}
    linked = {slot["name"] for slot in node.get("inputs") or [] if slot.get("link") is not None}
    values = {}
    position = 0
    for name, options, extra in _widgets(info):
        if position < len(saved):
            values[name] = saved[position]
        elif "default" in options:
            values[name] = options["default"]
        elif name not in linked:
            raise WorkflowError(
                f"Node {node['id']} ({node['type']}) has no value for {name!r}: "
                "open the workflow in ComfyUI, set it and save again."
            )
        position += 1 + extra
    return values


def _widgets(info: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """(name, options, values saved behind it) of a node type's widgets, in the page's order."""
    for group in ("required", "optional"):
        inputs = info["input"].get(group) or {}
        for name in info.get("input_order", {}).get(group) or inputs:
            kind, options = inputs[name][0], (inputs[name][1] if len(inputs[name]) > 1 else {})
            is_combo = isinstance(kind, list) or kind == "COMBO"
            if options.get("forceInput") or not (is_combo or kind in WIDGET_TYPES):
                continue
            # A seed is followed by "fixed", "randomize" ..., a file by its upload button.
            seed = kind == "INT" and name in ("seed", "noise_seed")
            extra = bool(options.get("control_after_generate", seed))
            extra += any(options.get(upload) for upload in UPLOADS)
            yield name, options, extra
