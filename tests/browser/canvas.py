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


@contextmanager
def open_page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """ComfyUI's page in a fresh profile, ready to be used, with an empty canvas."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    # A new user is met by the template browser; ours has seen it.
    context.request.post(f"{server.url}/api/settings/Comfy.TutorialCompleted", data="true")
    opened = context.new_page()
    opened.set_default_timeout(PAGE_SECONDS * 1000)
    opened.goto(server.url)
    opened.wait_for_function("window.app?.extensionManager && window.app.graph && window.LiteGraph")
    try:
        yield opened
    finally:
        context.close()


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


def picture(page: Page, name: str) -> None:
    """Keep what the page shows as docs/img/<name>.jpg, where CALIBRI_PICTURES names that folder."""
    if folder := os.environ.get("CALIBRI_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.jpg", type="jpeg", quality=80)
