"""The pack in ComfyUI's page: its nodes, its templates, and the same prompt as over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from comfy_client import ComfyClient

PACK = "comfyui-calibri"
WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))


def test_the_nodes_are_registered(page: Page, client: ComfyClient) -> None:
    ours = {
        name
        for name, node in client.get_json("/object_info").items()
        if node["python_module"] == f"custom_nodes.{PACK}"
    }
    assert ours
    assert ours <= set(page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_template_opens_from_the_template_browser(page: Page, file: Path) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).click()
    card = page.get_by_test_id(f"template-workflow-{file.stem}")
    thumbnail = card.locator("img").first
    expect(thumbnail).to_be_visible()
    assert thumbnail.evaluate("image => image.naturalWidth") > 0
    card.click()
    nodes = len(json.loads(file.read_text(encoding="utf-8"))["nodes"])
    page.wait_for_function(f"() => app.graph.nodes.length === {nodes}")
    # What the page says of nodes and files that are not there.
    page.wait_for_timeout(1000)
    expect(page.get_by_test_id("error-overlay")).to_have_count(0)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_the_page_makes_the_prompt_that_we_make(
    page: Page, client: ComfyClient, file: Path
) -> None:
    workflow = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    theirs = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert client.prompt_from_workflow(file) == theirs


def test_comfyuis_own_default_workflow_becomes_the_same_prompt(
    page: Page, client: ComfyClient, tmp_path: Path
) -> None:
    page.evaluate("() => app.loadGraphData()")
    file = tmp_path / "default.json"
    file.write_text(json.dumps(page.evaluate("() => app.graph.serialize()")))
    theirs = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert "KSampler" in {node["class_type"] for node in theirs.values()}
    assert client.prompt_from_workflow(file) == theirs
