"""Presets in workflows: chosen for a node, put into the workflow, and missing from one that was
sent by somebody else."""

# Fixtures are imported, and parameters called as they are.
# ruff: noqa: F811

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, Page, expect

from comfyui_calibri.calibri.preset_text import read_preset_text
from comfyui_calibri.calibri.presets import load_preset

from .canvas import open_page, open_workflow, picture
from .gallery import card, drawn_with, drop, open_gallery
from .presets import (  # the fixtures for every test here
    DEMO_MODEL,
    LOADER,
    Put,
    demo,  # noqa: F401
    no_complaints,  # noqa: F401
    put,  # noqa: F401
)

if TYPE_CHECKING:
    from comfy_server import ComfyServer


def test_a_node_gets_the_preset_that_is_chosen_for_it_or_has_it_in_it(page: Page, put: Put) -> None:
    file = put("chosen", "single.2=1.3")
    preset = replace(load_preset(file), thumbnail=b"")
    open_workflow(page, "quick start")
    press = "node.widgets.find(widget => widget.type === 'button').callback()"
    page.evaluate(f"() => {{ const [node] = {LOADER}; {press}; }}")
    gallery = page.get_by_role("region", name="Calibri presets")
    expect(gallery).to_contain_text("Choosing for: Load Calibri Preset")
    card(gallery, "chosen").get_by_role("button", name="Use in the node").click()
    page.wait_for_function(f"() => {LOADER}[0].widgets[0].value === 'chosen.safetensors'")
    expect(gallery).not_to_contain_text("Choosing for")
    # Apply gets a loader, and the link.
    page.evaluate(
        f"""() => {{
            const node = app.graph.nodes.find(node => node.type === 'CalibriApply');
            node.disconnectInput(node.inputs.findIndex(input => input.name === 'preset'));
            {press};
        }}"""
    )
    expect(gallery).to_contain_text("Choosing for: Apply Calibri")
    card(gallery, "chosen").get_by_role("button", name="Add to the graph").click()
    page.wait_for_function(
        f"() => {LOADER}.length === 2 && {LOADER}[1].outputs[0].links?.length === 1"
    )
    # The button is neither in the workflow nor in the prompt.
    saved = page.evaluate("() => app.graph.serialize()")
    loaders = [node for node in saved["nodes"] if node["type"] == "CalibriLoadPreset"]
    assert [node["widgets_values"] for node in loaders] == [["chosen.safetensors"]] * 2
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    inputs = [n["inputs"] for n in prompt.values() if n["class_type"] == "CalibriLoadPreset"]
    assert inputs == [{"preset_name": "chosen.safetensors"}] * 2

    # From the node's menu it goes into the workflow, and what was linked stays linked.
    page.evaluate(
        f"""async () => {{
            const extension = app.extensions.find(each => each.name === 'Calibri.Library');
            await extension.getNodeMenuItems({LOADER}[1])[0].callback();
        }}"""
    )
    page.wait_for_function(f"() => {LOADER}.length === 1")
    file.unlink()
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    (node,) = (k for k, n in prompt.items() if n["class_type"] == "CalibriPresetInWorkflow")
    assert read_preset_text(prompt[node]["inputs"]["text"]) == preset
    (applied,) = (n for n in prompt.values() if n["class_type"] == "CalibriApply")
    assert applied["inputs"]["preset"] == [node, 0]


def test_a_preset_within_a_subgraph_goes_into_the_workflow(page: Page, put: Put) -> None:
    """What the subgraph gives to the nodes around it is the same preset afterwards."""
    preset = replace(load_preset(put("inside", "single.2=1.3")), thumbnail=b"")
    open_workflow(page, "quick start")
    page.evaluate(
        f"""() => {{
            const [loader] = {LOADER};
            loader.widgets[0].value = 'inside.safetensors';
            app.graph.convertToSubgraph(new Set([loader]));
        }}"""
    )
    open_gallery(page)  # reads what there is
    page.evaluate(
        """async () => {
            const { subgraph } = app.graph.nodes.find(node => node.subgraph);
            const [loader] = subgraph.nodes;
            const extension = app.extensions.find(each => each.name === 'Calibri.Library');
            await extension.getNodeMenuItems(loader)[0].callback();
        }"""
    )
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    (node,) = (k for k, n in prompt.items() if n["class_type"] == "CalibriPresetInWorkflow")
    assert read_preset_text(prompt[node]["inputs"]["text"]) == preset
    (applied,) = (n for n in prompt.values() if n["class_type"] == "CalibriApply")
    assert applied["inputs"]["preset"] == [node, 0]
    assert "CalibriLoadPreset" not in {n["class_type"] for n in prompt.values()}


def test_a_workflow_names_the_preset_that_is_missing(
    page: Page, browser: Browser, server: ComfyServer, put: Put
) -> None:
    file = put("travels", "single.2=1.3", origin="a long night")
    open_workflow(page, "quick start")
    page.evaluate(f"() => {{ {LOADER}[0].widgets[0].value = 'travels.safetensors'; }}")
    # What was read when the page began does not know the file: the gallery reads anew.
    gallery = open_gallery(page)
    expect(card(gallery, "travels")).to_be_visible()
    sent = page.evaluate("() => app.graph.serialize()")
    renamed = file.rename(file.with_name("at my place.safetensors"))
    with open_page(browser, server) as theirs:
        drop(theirs, "drawn.png", drawn_with(sent), kind="image/png")
        dialog = theirs.get_by_role("dialog", name="Presets that are not here")
        expect(dialog).to_contain_text("travels")
        expect(dialog).to_contain_text(f"For {DEMO_MODEL}")
        expect(dialog).to_contain_text("Made from a long night")
        picture(theirs, "preset-missing")
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog).to_be_hidden()
        chosen = theirs.evaluate(f"() => {LOADER}[0].widgets[0].value")
        assert chosen == renamed.name
        renamed.unlink()
        theirs.evaluate("workflow => app.loadGraphData(workflow)", sent)
        expect(dialog).to_contain_text("drop it on the canvas")
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()
        # What was closed stays so, but another preset of its name is another.
        for digest, is_named in ((None, False), ("0" * 64, True)):
            (loader,) = (n for n in sent["nodes"] if n["type"] == "CalibriLoadPreset")
            if digest is not None:
                loader["properties"]["calibri_preset"]["digest"] = digest
            theirs.evaluate("async workflow => { await app.loadGraphData(workflow); }", sent)
            theirs.wait_for_timeout(500)  # the page has asked what there is
            expect(dialog).to_be_visible() if is_named else expect(dialog).to_be_hidden()
