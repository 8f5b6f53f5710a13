"""The pack in ComfyUI's page: its nodes, its templates, and the same prompt as over HTTP."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

from .canvas import picture

if TYPE_CHECKING:
    from comfy_client import ComfyClient

PACK = "comfyui-calibri"
WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
FOR_BIG_MODELS = re.compile("FLUX|SD3|Qwen|own checkpoint")
# The titles of nodes that cover each other, title bars included.
ON_EACH_OTHER = """() => {
    const boxes = app.graph.nodes.map(({ title, pos, size, flags }) => ({
        title, left: pos[0], top: pos[1] - 30,
        right: pos[0] + (flags.collapsed ? 100 : size[0]),
        bottom: pos[1] + (flags.collapsed ? 0 : size[1]),
    }));
    return boxes.flatMap((one, place) => boxes.slice(place + 1)
        .filter(other => one.left < other.right && other.left < one.right
            && one.top < other.bottom && other.top < one.bottom)
        .map(other => [one.title, other.title]));
}"""


def test_the_nodes_are_registered(page: Page, client: ComfyClient) -> None:
    ours = {
        name
        for name, node in client.get_json("/object_info").items()
        if node["python_module"] == f"custom_nodes.{PACK}"
    }
    assert ours
    assert ours <= set(page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))


def test_all_templates_are_shown_and_the_first_opens(page: Page) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).click()
    cards = {file: page.get_by_test_id(f"template-workflow-{file.stem}") for file in WORKFLOWS}
    for file, card in cards.items():
        card.scroll_into_view_if_needed()  # the page loads a thumbnail when it is looked at
        thumbnail = card.locator("img").first
        expect(thumbnail).to_be_visible()
        thumbnail.evaluate("image => image.decode()")
        assert thumbnail.evaluate("image => image.naturalWidth") > 0, file.stem
    (first,) = (file for file in WORKFLOWS if file.stem.endswith("a quick start"))
    cards[first].scroll_into_view_if_needed()
    picture(page, "templates")
    cards[first].click()
    nodes = len(json.loads(first.read_text(encoding="utf-8"))["nodes"])
    page.wait_for_function(f"() => app.graph.nodes.length === {nodes}")
    picture(page, "quick-start")


def test_the_page_reads_every_workflow_as_we_do(page: Page, client: ComfyClient) -> None:
    for file in WORKFLOWS:
        workflow = json.loads(file.read_text(encoding="utf-8"))
        page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        page.wait_for_function(f"() => app.graph.nodes.length === {len(workflow['nodes'])}")
        theirs = page.evaluate("async () => (await app.graphToPrompt()).output")
        assert client.prompt_from_workflow(file) == theirs, file.stem
        # Nodes grow to what they hold, buttons of the page's extensions too.
        assert page.evaluate(ON_EACH_OTHER) == [], file.stem
        if not FOR_BIG_MODELS.search(file.stem):  # their files are not on this server
            # What the page says of nodes and files that are not there.
            page.wait_for_timeout(1000)
            expect(page.get_by_test_id("error-overlay")).to_have_count(0)


def test_comfyuis_own_default_workflow_becomes_the_same_prompt(
    page: Page, client: ComfyClient, tmp_path: Path
) -> None:
    page.evaluate("() => app.loadGraphData()")
    file = tmp_path / "default.json"
    file.write_text(json.dumps(page.evaluate("() => app.graph.serialize()")))
    theirs = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert "KSampler" in {node["class_type"] for node in theirs.values()}
    assert client.prompt_from_workflow(file) == theirs
