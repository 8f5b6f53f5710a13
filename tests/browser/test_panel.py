"""The panel that follows a calibration: what a person does, from the template to a saved preset."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

from .background_runs import (  # the fixtures for every test here
    begin_opened,
    complaints,  # noqa: F401
    no_runs_left,  # noqa: F401
)
from .canvas import picture

if TYPE_CHECKING:
    from comfy_server import ComfyServer

TEMPLATE = "Calibri - calibrate in the background"
PANEL = "Watch a calibration"


def open_template(page: Page) -> None:
    """As a person does who looks for one."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("comfyui-calibri", exact=True).click()
    page.get_by_test_id(f"template-workflow-{TEMPLATE}").click()
    page.wait_for_function(
        "() => app.graph.nodes.some(node => node.type === 'CalibriCalibrateBackground')"
    )


def chart(panel: Locator, title: str) -> Locator:
    figure = panel.get_by_role("figure").filter(has_text=title)
    return figure.get_by_role("img")


def test_a_run_is_watched_saved_and_found_again(
    page: Page,
    server: ComfyServer,
    complaints: list[str],  # noqa: F811
) -> None:
    open_template(page)
    run = begin_opened(page, "watched")
    run.get_by_role("button", name="Watch watched").click()
    panel = page.get_by_role("region", name=PANEL)
    # All of it comes by itself, the best first of all.
    save = panel.get_by_role("button", name="Save the best watched")
    expect(save).to_be_visible()
    expect(panel).to_contain_text("images per second")
    expect(panel).to_contain_text("left, about")
    expect(chart(panel, "Gain on held-out prompts")).to_have_accessible_name(
        re.compile("95 % interval")
    )
    expect(chart(panel, "Reward of the candidates")).to_have_accessible_name(
        re.compile("plain model")
    )
    expect(chart(panel, "Step of the search")).to_have_accessible_name(re.compile("In generation"))
    expect(chart(panel, "Coefficients")).to_have_accessible_name(re.compile("Furthest from"))
    pictures = chart(panel, "plain above, calibrated below")
    page.wait_for_function("image => image.naturalWidth > 0", arg=pictures.element_handle())
    picture(page, "panel")

    save.click()
    expect(page.get_by_role("alert").filter(has_text="The best of “watched”")).to_be_visible()
    picture(page, "preset-saved")
    (saved,) = (server.models / "calibri").glob("watched*.safetensors")
    listed = page.evaluate(
        "() => { const node = LiteGraph.createNode('CalibriLoadPreset');"
        " return node.widgets.find(widget => widget.name === 'preset_name').options.values; }"
    )
    assert saved.name in listed

    # With the keyboard; the focus stays in the panel when its button goes.
    panel.get_by_role("button", name="Pause watched").press("Enter")
    expect(panel).to_contain_text("Paused")
    expect(panel.get_by_role("button", name="Resume watched")).to_be_focused()
    page.reload()
    offer = page.get_by_role("dialog", name="Calibrations to go on with")
    offer.get_by_role("button", name="Later", exact=True).click()
    page.evaluate("() => app.extensionManager.command.execute('Calibri.WatchRun')")
    expect(panel).to_contain_text("Paused")
    expect(chart(panel, "Gain on held-out prompts")).to_have_accessible_name(
        re.compile("95 % interval")
    )
    picture(page, "panel-after-reload")
    panel.get_by_role("button", name="Finish watched").click()
    report = panel.get_by_role("link", name="Report")
    expect(report).to_be_visible()
    answer = page.request.get(str(report.evaluate("link => link.href")))
    assert answer.headers["content-type"] == "image/png"
    assert complaints == []
