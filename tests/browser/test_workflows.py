"""The example workflows as a person uses them: open, run, watch, cancel, read the help."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from .canvas import open_workflow, press_run, set_widgets

if TYPE_CHECKING:
    from comfy_client import ComfyClient

DEMO_PRESET = "calibri-demo.safetensors"
RUN_SECONDS = 120  # on two busy cores; a few on idle ones
CALIBRATE = "app.graph.nodes.find(node => node.type === 'CalibriCalibrate')"


def wait_until_idle(client: ComfyClient) -> None:
    """Return when nothing runs and nothing waits."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        queue = client.get_json("/queue")
        if not queue["queue_running"] and not queue["queue_pending"]:
            return
        time.sleep(0.2)
    pytest.fail(f"ComfyUI was not idle within {RUN_SECONDS} s")


def test_the_preset_list_holds_the_demos(page: Page) -> None:
    open_workflow(page, "a quick start")
    listed = page.evaluate(
        "() => app.graph.nodes.find(node => node.type === 'CalibriLoadPreset')"
        ".widgets.find(widget => widget.name === 'preset_name').options.values"
    )
    assert DEMO_PRESET in listed


def test_run_shows_plain_and_calibrated_pictures(page: Page, client: ComfyClient) -> None:
    open_workflow(page, "a quick start")
    press_run(page)
    page.wait_for_function(
        "() => app.graph.nodes.filter(node => node.type === 'SaveImage')"
        ".every(node => node.imgs?.length === 8 && node.imgs.every(image => image.naturalWidth))",
        timeout=RUN_SECONDS * 1000,
    )
    wait_until_idle(client)
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)


def test_calibrate_shows_its_progress_and_stops_when_cancelled(
    page: Page, client: ComfyClient
) -> None:
    open_workflow(page, "- calibrate")
    # Generations so short that the first preview comes soon, and more than one waits for.
    set_widgets(page, "CalibriCalibrate", generations=1000, bucket_size=1, run_name="cancelled")
    set_widgets(page, "CalibriPromptSet", count=4)
    press_run(page)
    page.wait_for_function(f"() => {CALIBRATE}.progress > 0", timeout=RUN_SECONDS * 1000)
    page.wait_for_function(
        f"() => {CALIBRATE}.imgs?.[0]?.naturalWidth > 0", timeout=RUN_SECONDS * 1000
    )
    page.get_by_role("button", name="Cancel current run").first.click()
    wait_until_idle(client)
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)
    (last,) = client.get_json("/history?max_items=1").values()
    assert last["status"]["messages"][-1][0] == "execution_interrupted"


def test_a_nodes_help_is_its_page_of_the_docs(page: Page, root: Path) -> None:
    open_workflow(page, "- calibrate")
    page.evaluate(f"() => app.canvas.selectNode({CALIBRATE})")
    page.get_by_test_id("info-button").click()
    words = (root / "web" / "docs" / "CalibriCalibrate.md").read_text(encoding="utf-8")
    first = next(line for line in words.splitlines() if line and line[0].isalpha())
    expect(page.get_by_text(first[:40])).to_be_visible()
