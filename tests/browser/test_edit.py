"""The bars of Edit Calibri: with the mouse, with the keyboard, by number, undone and redone; and
that the page reads rules as the node does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from comfyui_calibri.calibri.compact_text import parse_rules
from comfyui_calibri.calibri.editing import edit_preset
from comfyui_calibri.calibri.presets import Preset, load_preset

from .background_runs import complaints  # noqa: F401 - a fixture
from .canvas import choose_setting, picture, press_run

DEMO = "calibri-demo.safetensors"
DEMO_FILE = Path(__file__).resolve().parents[2] / "demo/weights/calibri" / DEMO
VIEW = "Calibri.Presets.FirstView"
MODULE = "/extensions/comfyui-calibri/edit/rules.mjs"


def node(number: int, kind: str, widgets: list[Any], **links: int) -> dict[str, Any]:
    """A node of a workflow file; `links` are its inputs' links."""
    inputs = [{"name": name, "type": name.upper(), "link": link} for name, link in links.items()]
    place = {"pos": [420 * number - 300, 80], "size": [400, 560], "order": number, "mode": 0}
    return {
        "id": number,
        "type": kind,
        "inputs": inputs,
        "outputs": [],
        "widgets_values": widgets,
        "flags": {},
        "properties": {},
        **place,
    }


def open_graph(page: Page, first: dict[str, Any], kind: str, name: str, *more: Any) -> None:
    """Open a workflow where `first` is linked to an Edit Calibri's input `name`."""
    first["outputs"] = [{"name": name, "type": kind, "links": [1]}]
    edit = node(2, "CalibriEdit", ["gate", ""], **{name: 1})
    edit["inputs"][0]["type"] = kind
    links = [[1, 1, 0, 2, 0, kind]]
    for other in more:
        edit["outputs"] = [
            {"name": "preset", "type": "CALIBRI_PRESET", "links": None},
            {"name": "text", "type": "STRING", "links": [2]},
        ]
        links.append([2, 2, 1, other["id"], 0, "STRING"])
    workflow = {"version": 0.4, "last_node_id": 3, "last_link_id": 2, "links": links}
    workflow["nodes"] = [first, edit, *more]
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)


def rules(page: Page) -> str:
    found: str = page.evaluate(
        "() => app.graph.nodes.find(node => node.type === 'CalibriEdit')"
        ".widgets.find(widget => widget.name === 'rules').value"
    )
    return found


def wait_for_rules(page: Page, text: str) -> None:
    page.wait_for_function(
        "text => app.graph.nodes.find(node => node.type === 'CalibriEdit')"
        "?.widgets.find(widget => widget.name === 'rules').value === text"
        # Undo has ended, not only set the value.
        " && !app.extensionManager.workflow.activeWorkflow.changeTracker._restoringState",
        arg=text,
    )


def bar(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=name, exact=True)


def value_of(bar_: Locator) -> float:
    return float(bar_.get_attribute("aria-valuenow") or "nan")


def test_a_linked_presets_bars_are_edited(
    page: Page,
    complaints: list[str],  # noqa: F811
) -> None:
    open_graph(page, node(1, "CalibriLoadPreset", [DEMO]), "CALIBRI_PRESET", "preset")
    bars = page.get_by_role("slider")
    expect(bars).to_have_count(20)  # nothing was executed
    text = bar(page, "double.0.mlp.text")
    preset = load_preset(DEMO_FILE).members[0].coefficients
    assert value_of(text) == pytest.approx(preset["double.0.mlp.text"], abs=6e-4)

    # The keyboard: a key that is pressed is a step.
    text.focus()
    page.keyboard.press("Home")
    assert rules(page) == "double.0.mlp.text=-1"
    page.keyboard.press("PageUp")
    assert rules(page) == "double.0.mlp.text=-0.9"
    page.keyboard.press("ArrowRight")
    expect(bar(page, "double.1.attention.image")).to_be_focused()

    # The mouse: nothing is written before it is let go.
    image = bar(page, "double.1.mlp.image")
    box = image.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.4, 0.3):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * share)
    assert rules(page) == "double.0.mlp.text=-0.9"
    page.mouse.up()
    dragged = value_of(image)
    assert dragged == pytest.approx(preset["double.1.mlp.image"] + 0.6, abs=0.02)
    kept = rules(page)
    assert kept == f"double.0.mlp.text=-0.9\ndouble.1.mlp.image={dragged:g}"
    picture(page, "edit-bars")

    # The graph's own undo takes one gesture back each time, and the keyboard stays where it was.
    page.keyboard.press("Control+z")
    wait_for_rules(page, "double.0.mlp.text=-0.9")
    expect(image).to_be_focused()
    page.keyboard.press("Control+z")
    wait_for_rules(page, "double.0.mlp.text=-1")
    page.keyboard.press("Control+y")
    wait_for_rules(page, "double.0.mlp.text=-0.9")
    page.keyboard.press("Control+y")
    wait_for_rules(page, kept)

    # A number typed; a bar that is reset needs no rule.
    image.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("1.25")
    page.keyboard.press("Tab")
    assert rules(page) == "double.0.mlp.text=-0.9\ndouble.1.mlp.image=1.25"
    text.press("Delete")
    assert rules(page) == "double.1.mlp.image=1.25"

    # A block's bar moves its gates together, by as much each.
    page.get_by_role("combobox", name="One bar for each").select_option(label="Blocks")
    expect(bars).to_have_count(11)
    before = edit_preset(load_preset(DEMO_FILE), parse_rules(rules(page))).members[0].coefficients
    bar(page, "double.0").press("ArrowUp")
    after = edit_preset(load_preset(DEMO_FILE), parse_rules(rules(page))).members[0].coefficients
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert {name.rsplit(".", 2)[0] for name in moved} == {"double.0"}
    assert len(moved) == 4
    assert max(moved.values()) - min(moved.values()) < 2e-4
    # The rules are the whole of it: they are what the prompt carries.
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert prompt["2"]["inputs"] == {
        "granularity": "gate",
        "rules": rules(page),
        "preset": ["1", 0],
    }

    page.get_by_role("button", name="Reset all").click()
    assert rules(page) == ""
    assert complaints == []


def test_what_is_no_file_is_known_once_it_was_executed(page: Page) -> None:
    choose_setting(page, VIEW, "block")
    loader = node(1, "UNETLoader", ["calibri-demo-dit.safetensors", "default"])
    open_graph(page, loader, "MODEL", "model", node(3, "PreviewAny", [], source=2))
    expect(page.get_by_text("or run the workflow once")).to_be_visible()
    press_run(page)
    bars = page.get_by_role("slider")
    expect(bars).to_have_count(11)  # as the settings have it
    choose_setting(page, VIEW, "gate")
    page.get_by_role("combobox", name="One bar for each").select_option(label="Gates")
    expect(bars).to_have_count(20)
    assert {value_of(bars.nth(place)) for place in range(20)} == {1.0}


def test_the_page_reads_rules_as_the_node_does(page: Page) -> None:
    preset = load_preset(DEMO_FILE)
    members = Preset(**{**vars(preset), "members": preset.members * 2})
    texts = [
        "",
        "double.0.mlp.text=0.5",
        "double.0-1.attention = 0.8 # both, single.*=3\n\nsingle.* *= 1.1, *.2=.25",
        "* *=0.5\n*=1e-1\nsingle.3.fused=1.0",
        "member2.single=0.9\nmember1.double.0 *=-.5, member2.weight=0.5",
    ]
    names = list(preset.members[0].coefficients)
    values = [[m.coefficients[name] for name in names] for m in members.members]
    for text in texts:
        found = page.evaluate(
            f"async ([base, text]) => (await import({MODULE!r})).applied(base, text)",
            [{"names": names, "values": values}, text],
        )
        edited = edit_preset(members, parse_rules(text)).members
        assert found == [[m.coefficients[name] for name in names] for m in edited], text
    unreadable = ["double", "a=1=2", "double.9=1", "double..1=1", "double.0=x", "member3.single=1"]
    for text in unreadable:
        found = page.evaluate(
            f"async ([base, text]) => (await import({MODULE!r})).applied(base, text)",
            [{"names": names, "values": values}, text],
        )
        assert found is None, text
