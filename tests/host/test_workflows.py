"""The example workflows run in a real ComfyUI from the files that its templates open."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from comfy_client import ComfyClient
    from comfy_server import ComfyServer

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
GENERATIONS = 2  # instead of the calibration's own number, which takes minutes

pytestmark = [pytest.mark.oldest, pytest.mark.slow]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_an_example_workflow_runs_and_shows_pictures(
    client: ComfyClient, server: ComfyServer, file: Path
) -> None:
    prompt = client.prompt_from_workflow(file)
    calibrations = [n for n in prompt.values() if n["class_type"] == "CalibriCalibrate"]
    for node in calibrations:
        node["inputs"]["generations"] = GENERATIONS
    result = client.run(prompt)
    pictures = [
        Image.open(io.BytesIO(client.image(shown))).convert("RGB")
        for output in result.outputs.values()
        for shown in output.get("images", [])
    ]
    assert pictures
    for picture in pictures:
        assert any(low < high for low, high in picture.getextrema()), "a picture of one colour"
    saved = list((server.models / "calibri").glob("**/*.safetensors"))
    assert len(saved) >= len(calibrations)
