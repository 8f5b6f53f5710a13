"""Calibrations in the background, as tests of the page begin them and leave none behind."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page

from .canvas import open_workflow, press_run, set_widgets

if TYPE_CHECKING:
    from comfy_client import ComfyClient
    from comfy_server import ComfyServer

NODE = "CalibriCalibrateBackground"
TAB = "Calibri runs"


@pytest.fixture(autouse=True)
def no_runs_left(client: ComfyClient, server: ComfyServer) -> Iterator[None]:
    """The server is everybody's: each test leaves it without runs and their presets."""
    yield
    for run in client.get_json("/calibri/runs")["runs"]:
        request = urllib.request.Request(
            f"{client.url}/calibri/runs/{run['id']}",
            b"{}",
            {"Content-Type": "application/json"},
            method="DELETE",
        )
        urllib.request.urlopen(request, timeout=60).close()
    for file in (server.models / "calibri").glob("*.safetensors"):
        file.unlink()


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the page's console has to say against the pack, from now on."""
    found: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        if message.type in ("error", "warning") and "calibri" in (message.text + place).lower():
            found.append(f"{message.text} {place}")

    page.on("console", listen)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def begin(page: Page, name: str, slice_seconds: float = 2) -> Locator:
    """Queue the example workflow with small batches and without an end; the run's card."""
    open_workflow(page, "in the background")
    return begin_opened(page, name, slice_seconds)


def begin_opened(page: Page, name: str, slice_seconds: float = 2) -> Locator:
    """As `begin`, with the workflow that is open."""
    set_widgets(
        page,
        NODE,
        run_name=name,
        generations=1000,
        bucket_size=1,
        validate_every=1,
        keep_anyway=True,
        idle_seconds=0.5,
        slice_seconds=slice_seconds,
    )
    set_widgets(page, "CalibriPromptSet", count=4)
    set_widgets(page, "EmptySD3LatentImage", batch_size=1)
    press_run(page)
    return card(page, name)


def card(page: Page, name: str) -> Locator:
    """A run's card in the tab, which is opened where it is not open yet."""
    tab = page.get_by_role("region", name=TAB)
    if not tab.is_visible():
        page.get_by_role("button", name="Calibrations: running and past").click()
    return tab.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))


def wait_for_images(page: Page, bar: Locator, count: int) -> None:
    page.wait_for_function(
        "([bar, count]) => bar.value >= count", arg=[bar.element_handle(), count]
    )
