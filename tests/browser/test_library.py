"""Presets as a person meets them in the page: looked at, compared, renamed, deleted, dropped,
pasted, and missing from a workflow that somebody has sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from comfyui_calibri.calibri.compact_text import parse_rules
from comfyui_calibri.calibri.editing import edit_preset
from comfyui_calibri.calibri.preset_text import read_preset_text, write_preset_text
from comfyui_calibri.calibri.presets import Preset, load_preset, save_preset

from .canvas import open_page, open_workflow, picture
from .gallery import card, drawn_with, drop, open_gallery, toast

if TYPE_CHECKING:
    from comfy_server import ComfyServer

DEMO_FILE = Path(__file__).resolve().parents[2] / "demo/weights/calibri/calibri-demo.safetensors"
DEMO_MODEL = "calibri-demo-dit.safetensors"
LOADER = "app.graph.nodes.filter(node => node.type === 'CalibriLoadPreset')"

Put = Callable[..., Path]


@pytest.fixture(scope="module")
def demo() -> Preset:
    return load_preset(DEMO_FILE)


@pytest.fixture
def put(server: ComfyServer, demo: Preset) -> Iterator[Put]:
    """Saves the demo's preset under a name, changed; afterwards there is none but the demo's."""
    folder = server.models / "calibri"
    empty(folder)  # other files' tests save presets here too

    def put(name: str, rules: str = "", **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.safetensors"
        edited = edit_preset(demo, parse_rules(rules))
        save_preset(path, replace(edited, title=name, **changes), overwrite=True)
        return path

    yield put
    empty(folder)


def empty(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(autouse=True)
def no_complaints(page: Page) -> Iterator[None]:
    """The page's console has nothing to say against the pack."""
    found: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        # A refusal that a test asks for is the browser's error, not the page's.
        refused = "status of 422" in message.text
        ours = "calibri" in (message.text + place).lower()
        if message.type in ("error", "warning") and ours and not refused:
            found.append(f"{message.text} {place}")

    page.on("console", listen)
    page.on("pageerror", lambda error: found.append(str(error)))
    yield
    assert found == []


def test_presets_are_looked_at_searched_and_compared(page: Page, put: Put) -> None:
    open_workflow(page, "quick start")
    put("softer", "double.*.attention=0.8, single.2=1.4", licence="CC0")
    put(
        "elsewhere",
        family="sd3",
        blocks={"joint": 2},
        thumbnail=b"",
        base_model="so-long-a-name-" * 8,
    )
    gallery = open_gallery(page)
    expect(gallery.get_by_role("status")).to_have_text("3 of 3 presets")
    softer = card(gallery, "softer")
    expect(softer).to_contain_text("flux · gate · 20 coefficients")
    expect(softer).to_contain_text("Licence: CC0")
    expect(softer).to_contain_text("Nothing was measured for it")
    softer.scroll_into_view_if_needed()  # bars are drawn when somebody looks
    bars = softer.get_by_role("img", name="20 coefficients from")
    expect(bars.locator("rect")).to_have_count(20)
    measured = card(gallery, "calibri-demo-dit.safetensors: demo reward")
    shown = measured.get_by_role("img", name="Pictures of held-out prompts")
    expect(shown).to_have_js_property("naturalWidth", 196)
    expect(measured).to_contain_text("demo reward: −1.22 → −0.94, gain +0.28 [+0.14, +0.41]")
    measured.scroll_into_view_if_needed()
    picture(page, "presets")

    gallery.get_by_role("combobox", name="Presets for a model").select_option(DEMO_MODEL)
    expect(gallery.get_by_role("status")).to_have_text("2 of 3 presets")
    expect(softer).to_contain_text("Fits the model")
    gallery.get_by_role("searchbox").fill("CC0 soft")
    expect(gallery.get_by_role("status")).to_have_text("1 of 3 presets")
    gallery.get_by_role("searchbox").fill("")

    # With the keyboard.
    for each in (measured, softer):
        each.get_by_role("button", name="Compare").focus()
        page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Two presets")
    expect(dialog.get_by_role("row").first).to_contain_text("double.1.attention.text")
    expect(dialog.get_by_role("img").locator("rect")).to_have_count(40)
    picture(page, "presets-compared")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(softer.get_by_role("button", name="Compare")).to_have_attribute("aria-pressed", "false")

    # At 200 % zoom nothing is cut off, and everything that can be pressed says what it is.
    page.set_viewport_size({"width": 800, "height": 500})
    expect(bars).to_be_visible()
    assert gallery.evaluate("element => element.scrollWidth <= element.clientWidth")
    for button in gallery.get_by_role("button").all():
        assert (button.get_attribute("aria-label") or button.inner_text()).strip()


def test_a_preset_is_renamed_deleted_restored_and_sent_as_text(
    page: Page, put: Put, demo: Preset
) -> None:
    file = put("night")
    gallery = open_gallery(page)
    card(gallery, "night").get_by_role("button", name="Rename").click()
    question = page.get_by_role("dialog")
    question.get_by_role("textbox").fill("moods/dusk")
    page.keyboard.press("Enter")
    expect(card(gallery, "night")).to_contain_text("moods/dusk")
    renamed = file.with_name("moods") / "dusk.safetensors"
    assert renamed.is_file()
    card(gallery, "night").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(card(gallery, "night")).to_have_count(0)
    expect(toast(page, "dusk.safetensors is in the trash")).to_be_visible()
    assert not renamed.exists()
    gallery.get_by_text("Trash").click()
    gallery.get_by_role("button", name="Restore: moods/dusk").click()
    expect(card(gallery, "night")).to_contain_text("moods/dusk")
    assert renamed.is_file()
    # The demo's is not theirs to rename.
    source = card(gallery, "calibri-demo-dit.safetensors: demo reward")
    expect(source.get_by_role("button", name="Compare")).to_be_visible()
    expect(source.get_by_role("button", name="Rename")).to_have_count(0)

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    source.get_by_role("button", name="Copy as text").click()
    expect(toast(page, "is copied as text")).to_be_visible()
    text = page.evaluate("() => navigator.clipboard.readText()")
    assert text == write_preset_text(demo)
    gallery.get_by_role("button", name="Paste text").click()
    dialog = page.get_by_role("dialog", name="Paste text")
    dialog.get_by_role("textbox").fill(text.replace(demo.title, "by mail", 1))
    dialog.get_by_role("button", name="Keep as a file").click()
    expect(card(gallery, "by mail")).to_contain_text("gain +0.28")
    gallery.get_by_role("button", name="Paste text").click()
    dialog.get_by_role("textbox").fill("double.0=0.8")
    dialog.get_by_role("button", name="Keep as a file").click()
    expect(toast(page, "belong into Edit Calibri")).to_be_visible()


def test_a_dropped_preset_is_kept_and_gets_a_node(
    page: Page, put: Put, server: ComfyServer
) -> None:
    page.evaluate("() => app.graph.clear()")
    path = put("dropped")
    data = path.read_bytes()
    path.unlink()
    for count in (1, 2):  # the second time it is there already
        drop(page, "from a friend.safetensors", data)
        if count == 2:
            expect(toast(page, "was there already")).to_be_visible()
        page.wait_for_function(f"() => {LOADER}.length === {count}")
        (kept,) = (server.models / "calibri").glob("*.safetensors")
        assert kept.read_bytes() == data
    assert page.evaluate(f"() => {LOADER}.map(node => node.widgets[0].value)") == [kept.name] * 2
    picture(page, "preset-dropped")
    gallery = open_gallery(page)
    path = put("other")
    data = path.read_bytes()
    path.unlink()
    drop(page, "other.safetensors", data, ".calibri-library")
    expect(card(gallery, "other")).to_be_visible()
    page.wait_for_function(f"() => {LOADER}.length === 3")

    # Other files are ComfyUI's.
    workflow = json.dumps({"nodes": [], "links": [], "version": 0.4, "last_node_id": 77})
    header = json.dumps({"__metadata__": {"workflow": workflow, "format": "pt"}}).encode()
    drop(page, "lora.safetensors", len(header).to_bytes(8, "little") + header)
    page.wait_for_function(
        "() => app.graph.last_node_id === 77 || app.graph.state?.lastNodeId === 77"
    )
    assert len(list((server.models / "calibri").glob("*.safetensors"))) == 2
    damaged = (2).to_bytes(8, "little") + b"{"
    drop(page, "damaged.safetensors", damaged)
    expect(toast(page, "damaged.safetensors")).to_be_visible()


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
