"""The panel that follows a calibration: what a person does, from the template to a saved preset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, Page, expect

from comfyui_calibri.calibri import stop_request
from comfyui_calibri.calibri.journal import Journal

from .background_runs import (  # the fixtures for every test here
    begin_opened,
    card,
    complaints,  # noqa: F401
    no_runs_left,  # noqa: F401
)
from .canvas import (
    choose_setting,
    light_theme,
    open_workflow,
    picture,
    press_run,
    reload,
    set_widgets,
    zoomed,
)

if TYPE_CHECKING:
    from comfy_server import ComfyServer

TEMPLATE = "Calibri - calibrate in the background"
PANEL = "Watch a calibration"
OPEN = "Calibri.Runs.OpenWhenOneBegins"


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

    # In the light theme, and at 200 % zoom, where nothing is cut off.
    with light_theme(page):
        picture(page, "panel-light")
        with zoomed(page):
            expect(report).to_be_visible()
            picture(page, "panel-zoomed")
            assert panel.evaluate("element => element.scrollWidth <= element.clientWidth")
    for control in (*panel.get_by_role("button").all(), report, panel.get_by_role("combobox")):
        assert (control.get_attribute("aria-label") or control.inner_text()).strip()
    assert complaints == []


@pytest.fixture
def own_settings(page: Page) -> Iterator[None]:
    """The server keeps a user's settings: other tests begin without those of this file."""
    yield
    choose_setting(page, OPEN, False)


def test_a_calibration_in_a_prompt_is_watched_too(
    page: Page,
    server: ComfyServer,
    complaints: list[str],  # noqa: F811
    own_settings: None,
) -> None:
    choose_setting(page, OPEN, True)
    open_workflow(page, "- calibrate")
    set_widgets(
        page,
        "CalibriCalibrate",
        **{"run_name": "front", "generations": 1000, "bucket_size": 1, "validate_every": 1},
        keep_anyway=True,
    )
    set_widgets(page, "CalibriPromptSet", count=4)
    press_run(page)
    # The panel opens by itself.
    panel = page.get_by_role("region", name=PANEL)
    expect(panel).to_contain_text("Running")
    expect(panel.get_by_role("button", name="Save the best front")).to_be_visible()
    expect(panel).to_contain_text("left, about")
    expect(panel.get_by_role("button", name="Pause front")).to_be_hidden()
    pictures = chart(panel, "plain above, calibrated below")
    page.wait_for_function("image => image.naturalWidth > 0", arg=pictures.element_handle())
    picture(page, "panel-of-a-prompt")
    panel.get_by_role("button", name="Save the best front").click()
    expect(panel).to_contain_text("Preset: front.safetensors")
    assert (server.models / "calibri" / "front.safetensors").is_file()
    panel.get_by_role("button", name="Stop front").click()
    expect(panel).to_contain_text("At rest")
    expect(panel.get_by_role("button", name="Stop front")).to_be_hidden()

    # Found again afterwards, from its node too; queued again it goes on and is told to end.
    reload(page)
    open_workflow(page, "- calibrate")
    set_widgets(page, "CalibriCalibrate", run_name="front")
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find(node => node.type === 'CalibriCalibrate');
            const extension = app.extensions.find(each => each.name === 'Calibri.Watch');
            extension.getNodeMenuItems(node)[0].callback();
        }"""
    )
    expect(panel).to_contain_text("comfyui-calibri resume front")
    expect(chart(panel, "Gain on held-out prompts")).to_have_accessible_name(
        re.compile("95 % interval")
    )
    set_widgets(
        page,
        "CalibriCalibrate",
        **{"generations": 1000, "bucket_size": 1, "validate_every": 1, "keep_anyway": True},
    )
    set_widgets(page, "CalibriPromptSet", count=4)
    press_run(page)
    panel.get_by_role("button", name="Finish front").click()
    expect(panel).to_contain_text("Finished")
    expect(panel.get_by_role("link", name="Report")).to_be_visible()
    run = card(page, "front")
    run.get_by_role("button", name="Delete front").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(run).to_have_count(0)
    assert complaints == []


def test_a_run_of_another_process_is_watched_and_asked_to_stop(
    page: Page, server: ComfyServer
) -> None:
    folder = server.folder / "user" / "calibri" / "runs" / "abroad"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"seed": 1}')
    with Journal.open(folder / "journal.sqlite"):
        page.evaluate("() => app.extensionManager.command.execute('Calibri.WatchRun')")
        panel = page.get_by_role("region", name=PANEL)
        expect(panel).to_contain_text("another ComfyUI, works on it")
        panel.get_by_role("button", name="Stop abroad").click()
        expect(panel).to_contain_text("It was asked to stop")
        assert stop_request.asked(folder) == stop_request.STOP
        expect(card(page, "abroad").get_by_role("button", name="Delete")).to_be_hidden()
    # Nobody tells: the page looks.
    expect(panel).to_contain_text("At rest")
