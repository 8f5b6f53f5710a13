"""What a person does with workflows in the page."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


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
