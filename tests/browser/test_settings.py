"""The pack's settings and keys, as a person finds them in ComfyUI's."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from .background_runs import complaints  # noqa: F401 - a fixture
from .canvas import picture, reload

PANEL = "Watch a calibration"
GALLERY = "Calibri presets"


def test_keys_open_and_close_the_panel_and_the_gallery(
    page: Page,
    complaints: list[str],  # noqa: F811 - ComfyUI's own say where keys collide
) -> None:
    reload(page)  # now it is heard what the page says when it starts
    panel = page.get_by_role("region", name=PANEL)
    gallery = page.get_by_role("region", name=GALLERY)
    for key, opened in (("Shift+W", panel), ("Shift+P", gallery)):
        page.mouse.click(800, 500)
        page.keyboard.press(key)
        expect(opened).to_be_focused()
        page.keyboard.press(key)
        expect(opened).to_be_hidden()
    # Where somebody writes it is a letter.
    page.keyboard.press("Shift+P")
    search = gallery.get_by_role("searchbox")
    search.click()
    page.keyboard.press("Shift+W")
    page.keyboard.press("Shift+P")
    expect(search).to_have_value("WP")
    expect(panel).to_be_hidden()
    assert complaints == []


def test_settings_have_a_page_of_their_own(page: Page) -> None:
    page.keyboard.press("Control+,")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Calibri", exact=True).first.click()
    for name in (
        "Offer to go on with calibrations that rest",
        "Open the panel when a calibration begins",
        "Ask before a dropped preset is kept",
        "Edit Calibri begins with one bar for each",
    ):
        expect(dialog.get_by_text(name)).to_be_visible()
    picture(page, "settings")
