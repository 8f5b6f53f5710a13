"""The pictures of the node help pages (web/docs/img), taken in ComfyUI's own page.

    python -m comfyui_calibri.experiments.node_pictures --url http://127.0.0.1:8188 [--only NodeId]

The address is that of a running ComfyUI with this pack and nothing else, without `--multi-user`. A
node is shown where an example workflow has it, with the nodes around it, or else alone. Workflows
that take seconds are run first. What the nodes that take minutes give is taken from docs/images.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "web" / "docs" / "img"
WIDTH = 720  # pixels of a picture at most; the help's column is narrower
VIEW = {"width": 1800, "height": 1300}
PLACE = (260, 130)  # pixels of the page: right of its bars and below them
ROOM = (960, 1000)  # pixels there without a bar or a map before it
MARGIN = 24  # pixels of the canvas around the nodes
RUN_SECONDS = 300

# What the result looks like tells more than the node.
RESULTS = {
    "CalibriAHPARouter": "ahpa_inspection.png",
    "CalibriAnalyzeBlocks": "analyze_heat_map.png",
    "CalibriCalibrate": "report.png",
    "CalibriCalibrateBackground": "background.png",
    "CalibriEvaluate": "evaluation.png",
}


@dataclass(frozen=True)
class Scene:
    """A node in an example workflow, by the workflow's name and the titles of nodes around it."""

    workflow: str
    around: tuple[str, ...] = ()


SCENES = {
    "CalibriApply": Scene("a quick start", ("Load Calibri Preset",)),
    "CalibriLoadPreset": Scene("a quick start", ("Apply Calibri",)),
    "CalibriLoadDemoTextEncoder": Scene("a quick start", ("Prompt", "Negative prompt")),
    "CalibriConvertPreset": Scene("edit a preset", ("Load Calibri Preset",)),
    "CalibriEdit": Scene("edit a preset", ("The edited preset as text",)),
    "CalibriBlendPresets": Scene("edit a preset", ("Apply Calibri",)),
    "CalibriSavePreset": Scene("edit a preset", ("Save as Weight Patch",)),
    "CalibriSaveWeightPatch": Scene("edit a preset", ("Save Calibri Preset",)),
    "CalibriScoreImages": Scene("score and pick images", ("Demo Reward",)),
    "CalibriPickBest": Scene("score and pick images", ("Score all",)),
    "CalibriRewardInput": Scene(
        "score and pick images",
        ("Left and right changed", "Your scorer", "Reward from Workflow"),
    ),
    "CalibriWorkflowReward": Scene("score and pick images", ("Score turned over",)),
    "CalibriPromptSet": Scene("calibrate", ("Held-out prompts to measure on",)),
    "CalibriCombineRewards": Scene("several rewards", ("Scores of the sum",)),
    "CalibriRewardFloor": Scene("several rewards", ("Scores of the floor",)),
    "CalibriDemoReward": Scene("several rewards", ("The checker",)),
    "CalibriLoadReward": Scene("calibrate your own checkpoint"),
    "CalibriPromptTemplate": Scene("calibrate your own checkpoint"),
    "CalibriSplitPrompts": Scene("calibrate your own checkpoint"),
}
QUICK = ("a quick start", "edit a preset", "score and pick images")

# Parts of a program; `box` is the nodes' common box on the canvas, titles included.
_BOX = """const box = nodes => {
    const boxes = nodes.map(({ pos, size }) => [pos[0], pos[1] - 30, size[0], size[1] + 30]);
    const left = Math.min(...boxes.map(box => box[0])), top = Math.min(...boxes.map(box => box[1]));
    const right = Math.max(...boxes.map(box => box[0] + box[2]));
    const bottom = Math.max(...boxes.map(box => box[1] + box[3]));
    return [left, top, right - left, bottom - top];
};"""
_FIND = """
    const main = app.graph.nodes.find(node => node.type === kind);
    const near = app.graph.nodes.filter(node => node !== main && titles.includes(node.title));
    return box([main, ...near]);"""
_ALONE = """
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    node.pos = [0, 0];
    node.setSize([360, Math.max(node.computeSize()[1], node.size[1])]);
    return box([node]);"""
_SHOW = """([scale, x, y]) => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [x, y];
    app.canvas.deselectAll?.();
    app.canvas.setDirty(true, true);
}"""


@contextmanager
def open_page(url: str) -> Iterator[Any]:
    """ComfyUI's page, ready to be used."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport=VIEW, locale="en-US", device_scale_factor=1)
        for name, value in (("TutorialCompleted", "true"), ("Minimap.Visible", "false")):
            context.request.post(f"{url}/api/settings/Comfy.{name}", data=value)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_function("window.app?.extensionManager && window.app.graph")
        page.wait_for_timeout(1500)
        yield page
        browser.close()


def open_workflow(page: Any, name: str, url: str) -> None:
    """Load an example workflow and, where it takes seconds, run it."""
    file = ROOT / "workflows" / f"Calibri - {name}.json"
    workflow = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1500)
    if name in QUICK:
        page.evaluate("() => app.queuePrompt(0)")
        page.wait_for_timeout(1000)
        wait_until_idle(url)
        page.wait_for_timeout(1500)


def wait_until_idle(url: str) -> None:
    """Return when nothing runs and nothing waits; TimeoutError after RUN_SECONDS."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/queue") as answer:
            queue = json.loads(answer.read())
        if not queue["queue_running"] and not queue["queue_pending"]:
            return
        time.sleep(0.5)
    raise TimeoutError(f"{url} was not idle within {RUN_SECONDS} s.")


def find(page: Any, program: str, node: str, titles: tuple[str, ...] = ()) -> list[float]:
    """What `program`, _FIND or _ALONE, has for a box: [left, top, width, height]."""
    found: list[float] = page.evaluate(
        "([kind, titles]) => {" + _BOX + program + "}", [node, list(titles)]
    )
    return found


def photograph(page: Any, box: list[float]) -> Image.Image:
    """What the canvas shows in `box`: [left, top, width, height] on the canvas."""
    left, top, width, height = box
    scale = min(ROOM[0] / (width + 2 * MARGIN), ROOM[1] / (height + 2 * MARGIN), 1.6)
    x, y = PLACE[0] / scale - left + MARGIN, PLACE[1] / scale - top + MARGIN
    page.evaluate(_SHOW, [scale, x, y])
    page.wait_for_timeout(800)
    clip = {
        "x": PLACE[0],
        "y": PLACE[1],
        "width": (width + 2 * MARGIN) * scale,
        "height": (height + 2 * MARGIN) * scale,
    }
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def save(picture: Image.Image, node: str) -> None:
    """Write web/docs/img/<node>.webp, at most WIDTH pixels wide."""
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{node}.webp"
    picture.save(path, quality=78, method=6)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--only", nargs="+", help="ids of nodes; all of them if not given")
    options = parser.parse_args()
    opened = ""
    with open_page(options.url) as page:
        known = page.evaluate("() => Object.keys(LiteGraph.registered_node_types)")
        nodes = options.only or [name for name in known if name.startswith("Calibri")]
        # The scenes of one workflow one after another.
        nodes.sort(key=lambda node: (SCENES[node].workflow if node in SCENES else "", node))
        for node in nodes:
            if node in RESULTS:
                save(Image.open(ROOT / "docs" / "images" / RESULTS[node]).convert("RGB"), node)
                continue
            scene = SCENES.get(node)
            if scene is None:
                save(photograph(page, find(page, _ALONE, node)), node)
                opened = ""
                continue
            if opened != scene.workflow:
                open_workflow(page, scene.workflow, options.url)
                opened = scene.workflow
            save(photograph(page, find(page, _FIND, node, scene.around)), node)


if __name__ == "__main__":
    main()
