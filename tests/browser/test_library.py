"""Presets as a person meets them in the page: looked at, compared, renamed, deleted, dropped and
pasted."""

# Fixtures are imported, and parameters called as they are.
# ruff: noqa: F811

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

from comfyui_calibri.calibri.preset_text import write_preset_text
from comfyui_calibri.calibri.presets import Preset

from .canvas import choose_setting, light_theme, open_workflow, picture, zoomed
from .gallery import card, drop, open_gallery, toast
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

ASK = "Calibri.Presets.AskWhenDropped"


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
    page.mouse.move(1000, 600)  # where nothing has a tooltip
    with light_theme(page):
        picture(page, "presets-light")
        with zoomed(page):
            softer.scroll_into_view_if_needed()
            expect(bars).to_be_visible()
            picture(page, "presets-zoomed")
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

    # Who wishes so is asked first.
    choose_setting(page, ASK, True)
    drop(page, "other.safetensors", data)
    question = page.get_by_role("dialog").filter(has_text="other.safetensors")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    choose_setting(page, ASK, False)
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
