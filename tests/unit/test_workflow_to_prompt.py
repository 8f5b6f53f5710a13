"""A saved workflow becomes the prompt that ComfyUI's page would send.

tests/browser compares the conversion of the files in workflows/ with the page's own.
"""

from __future__ import annotations

from typing import Any

import pytest

from workflow_to_prompt import BYPASSED, MUTED, WorkflowError, workflow_to_prompt

OBJECT_INFO: dict[str, Any] = {
    "Load": {
        "display_name": "Load it",
        "input": {"required": {"file": [["a.png", "b.png"], {"image_upload": True}]}},
        "input_order": {"required": ["file"]},
    },
    "Sample": {
        "input": {
            "required": {
                "steps": ["INT", {"default": 20}],
                "image": ["IMAGE"],
                "seed": ["INT", {"default": 0}],
            },
            "optional": {
                "name": ["COMBO", {"options": ["x", "y"], "default": "x"}],
                "sigma": ["FLOAT", {"forceInput": True}],
                "note": ["STRING", {"default": ""}],
            },
        },
        # Not the order of the keys above: the page's widgets follow this one.
        "input_order": {"required": ["image", "seed", "steps"]},
    },
}


def sample_node(**changes: Any) -> dict[str, Any]:
    """A Sample node: image from link 1, seed 7 (kept), 4 steps."""
    node = {
        "id": 2,
        "type": "Sample",
        "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
        "widgets_values": [7, "fixed", 4, "y", "hello"],
    }
    return {**node, **changes}


def load_node(**changes: Any) -> dict[str, Any]:
    """A Load node, showing b.png."""
    return {"id": 1, "type": "Load", "widgets_values": ["b.png", "image"], **changes}


def convert(*nodes: dict[str, Any], links: list[Any] | None = None) -> dict[str, Any]:
    if links is None:
        links = [[1, 1, 0, 2, 0, "IMAGE"]]
    return workflow_to_prompt({"nodes": list(nodes), "links": links}, OBJECT_INFO)


def test_widgets_take_their_values_past_what_the_page_saves_between_them() -> None:
    prompt = convert(load_node(), sample_node())
    assert prompt["1"] == {
        "class_type": "Load",
        "inputs": {"file": "b.png"},
        "_meta": {"title": "Load it"},
    }
    assert prompt["2"]["inputs"] == {
        "seed": 7,
        "steps": 4,
        "name": "y",
        "note": "hello",
        "image": ["1", 0],
    }


def test_a_linked_widget_takes_the_link() -> None:
    node = sample_node(
        inputs=[{"name": "steps", "type": "INT", "link": 1, "widget": {"name": "steps"}}]
    )
    assert convert(load_node(), node)["2"]["inputs"]["steps"] == ["1", 0]


def test_missing_values_are_the_defaults() -> None:
    prompt = convert(load_node(), sample_node(widgets_values=[7, "fixed"]))
    assert prompt["2"]["inputs"]["steps"] == 20


def test_a_value_that_nobody_gives_is_an_error() -> None:
    with pytest.raises(WorkflowError, match=r"Node 1 \(Load\) has no value for 'file'"):
        convert(load_node(widgets_values=[]), links=[])


def test_values_saved_by_name_are_found_by_name() -> None:
    node = sample_node(widgets_values={"steps": 9, "seed": 1, "other": 3})
    assert convert(load_node(), node)["2"]["inputs"] == {"steps": 9, "seed": 1, "image": ["1", 0]}


def test_links_of_schema_one_are_read() -> None:
    link = {"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0}
    prompt = convert(load_node(), sample_node(), links=[{**link, "type": "IMAGE"}])
    assert prompt["2"]["inputs"]["image"] == ["1", 0]


def test_reroutes_and_bypassed_nodes_are_passed_through() -> None:
    reroute = {"id": 3, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 2}]}
    bypassed = {
        "id": 4,
        "type": "Sample",
        "mode": BYPASSED,
        "inputs": [
            {"name": "sigma", "type": "FLOAT", "link": None},
            {"name": "image", "type": "IMAGE", "link": 3},
        ],
    }
    links = [[1, 3, 0, 2, 0, "IMAGE"], [2, 4, 0, 3, 0, "IMAGE"], [3, 1, 0, 4, 1, "IMAGE"]]
    prompt = convert(load_node(), sample_node(), reroute, bypassed, links=links)
    assert prompt.keys() == {"1", "2"}
    assert prompt["2"]["inputs"]["image"] == ["1", 0]


def test_muted_nodes_and_notes_are_left_out() -> None:
    prompt = convert(load_node(mode=MUTED), sample_node(), {"id": 9, "type": "MarkdownNote"})
    assert prompt.keys() == {"2"}
    assert "image" not in prompt["2"]["inputs"]


def test_a_primitive_gives_its_value() -> None:
    primitive = {"id": 1, "type": "PrimitiveNode", "widgets_values": [33, "fixed"]}
    assert convert(primitive, sample_node())["2"]["inputs"]["image"] == 33


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(WorkflowError, match="Node 5 is a 'Nowhere', which this ComfyUI does not"):
        convert({"id": 5, "type": "Nowhere"}, links=[])
