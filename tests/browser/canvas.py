"""What a person does in the page: open it, open a workflow, change it, press Run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, Page

if TYPE_CHECKING:
    from comfy_server import ComfyServer

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PAGE_SECONDS = 120
READY = "window.app?.extensionManager && window.app.graph && window.LiteGraph"


@contextmanager
def open_page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """ComfyUI's page in a fresh profile, ready to be used, with an empty canvas."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    # A new user is met by the template browser; ours has seen it.
    context.request.post(f"{server.url}/api/settings/Comfy.TutorialCompleted", data="true")
    opened = context.new_page()
    opened.set_default_timeout(PAGE_SECONDS * 1000)
    opened.goto(server.url)
    opened.wait_for_function(READY)
    try:
        yield opened
    finally:
        context.close()


def reload(page: Page) -> None:
    """Load the page again, and wait until it can be used."""
    page.reload()
    page.wait_for_function(READY)


def open_workflow(page: Page, ending: str) -> None:
    """Load the workflow whose name ends in `ending`, as its template does."""
    (file,) = (file for file in WORKFLOWS.glob("*.json") if file.stem.endswith(ending))
    workflow = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function(f"() => app.graph.nodes.length === {len(workflow['nodes'])}")


def set_widgets(page: Page, kind: str, **values: object) -> None:
    """Set widgets of every node of this kind."""
    page.evaluate(
        """([kind, values]) => {
            for (const node of app.graph.nodes.filter(node => node.type === kind))
                for (const widget of node.widgets ?? [])
                    if (widget.name in values) widget.value = values[widget.name];
        }""",
        [kind, values],
    )


def press_run(page: Page) -> None:
    page.get_by_test_id("queue-button").click()


def choose_setting(page: Page, name: str, value: object) -> None:
    """As in ComfyUI's settings."""
    page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])


@contextmanager
def light_theme(page: Page) -> Iterator[None]:
    """Within, the page is light."""
    choose_setting(page, "Comfy.ColorPalette", "light")
    page.wait_for_function("() => !document.body.classList.contains('dark-theme')")
    yield
    choose_setting(page, "Comfy.ColorPalette", "dark")


@contextmanager
def zoomed(page: Page, factor: int = 2) -> Iterator[None]:
    """Within, the page has as much room as where a browser zooms in by this factor."""
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({side: pixels // factor for side, pixels in size.items()})
    yield
    page.set_viewport_size(size)


def picture(page: Page, name: str) -> None:
    """Keep what the page shows as docs/img/<name>.jpg, where CALIBRI_PICTURES names that folder."""
    if folder := os.environ.get("CALIBRI_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.jpg", type="jpeg", quality=80)
