"""The workflows about blocks and edited presets, in a real ComfyUI.

Not on v0.3.64, whose loader knows FLUX at its full width only, so not the demo's model.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from comfy_client import ComfyClient, PromptResult
    from comfy_server import ComfyServer

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"

Prompt = dict[str, dict[str, Any]]


@pytest.mark.slow
def test_analyze_blocks_draws_what_it_found_and_suggests_layers(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = client.prompt_from_workflow(WORKFLOWS / "Calibri - analyze blocks.json")
    # As it stands it takes a minute.
    _node(prompt, "CalibriAnalyzeBlocks")["inputs"].update(only="double", scales="0, 1.5")
    _node(prompt, "CalibriPromptSet")["inputs"].update(count=4)
    result = client.run(prompt)
    for title in ("Heat map", "Curves"):
        (picture,) = _pictures(client, result, prompt, title)
        assert picture.shape[1] == 1000
        assert picture.std() > 1
    folder = server.output / "calibri" / "analysis"
    numbers = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    assert sorted(numbers["coefficients"]) == ["double.0", "double.1", "double.2"]
    assert numbers["counts"]["images"] == (1 + 3 * 2) * 4
    told = numbers["skip_layer_guidance"]
    for title in ("double_layers", "single_layers"):
        assert _shown(result, prompt, title) == told[title]


@pytest.mark.slow
def test_an_edited_preset_draws_the_same_as_its_weight_patch(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = client.prompt_from_workflow(WORKFLOWS / "Calibri - edit a preset.json")
    result = client.run(prompt)
    plain, edited, patch = (
        _pictures(client, result, prompt, title).astype(int)
        for title in ("Plain", "Edited", "Patch")
    )
    assert edited.shape == (8, 256, 256, 3)
    assert np.abs(edited - plain).max() > 50
    assert np.abs(edited - patch).max() <= 2  # of 255
    assert "double.0.attention=" in _shown(result, prompt, "The edited preset as text")
    assert list((server.models / "loras").glob("calibri-edited_*.safetensors"))


def _node(prompt: Prompt, kind: str) -> dict[str, Any]:
    (found,) = (node for node in prompt.values() if node["class_type"] == kind)
    return found


def _titled(prompt: Prompt, title: str) -> str:
    (found,) = (number for number, node in prompt.items() if node["_meta"]["title"] == title)
    return found


def _shown(result: PromptResult, prompt: Prompt, title: str) -> str:
    (text,) = result.outputs[_titled(prompt, title)]["text"]
    return str(text)


def _pictures(client: ComfyClient, result: PromptResult, prompt: Prompt, title: str) -> np.ndarray:
    """What an output node shows: [pictures, H, W, 3]."""
    shown = result.outputs[_titled(prompt, title)]["images"]
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(client.image(s))).convert("RGB")) for s in shown]
    )
