"""Presets as tests of the page put them there and leave none behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

from comfyui_calibri.calibri.compact_text import parse_rules
from comfyui_calibri.calibri.editing import edit_preset
from comfyui_calibri.calibri.presets import Preset, load_preset, save_preset

if TYPE_CHECKING:
    from comfy_server import ComfyServer

DEMO_FILE = Path(__file__).resolve().parents[2] / "demo/weights/calibri/calibri-demo.safetensors"
DEMO_MODEL = "calibri-demo-dit.safetensors"
LOADER = "app.graph.nodes.filter(node => node.type === 'CalibriLoadPreset')"

Put = Callable[..., Path]


@pytest.fixture(scope="module")
def demo() -> Preset:
    return load_preset(DEMO_FILE)


@pytest.fixture
def put(server: ComfyServer, demo: Preset) -> Iterator[Put]:
    """Saves the demo's preset under a name, changed; afterwards there is none but the demo's."""
    folder = server.models / "calibri"
    empty(folder)  # other files' tests save presets here too

    def put(name: str, rules: str = "", **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.safetensors"
        edited = edit_preset(demo, parse_rules(rules))
        save_preset(path, replace(edited, title=name, **changes), overwrite=True)
        return path

    yield put
    empty(folder)


def empty(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(autouse=True)
def no_complaints(page: Page) -> Iterator[None]:
    """The page's console has nothing to say against the pack."""
    found: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        # A refusal that a test asks for is the browser's error, not the page's.
        refused = "status of 422" in message.text
        ours = "calibri" in (message.text + place).lower()
        if message.type in ("error", "warning") and ours and not refused:
            found.append(f"{message.text} {place}")

    page.on("console", listen)
    page.on("pageerror", lambda error: found.append(str(error)))
    yield
    assert found == []
