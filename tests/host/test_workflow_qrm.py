"""The workflow with a QRM, in a real ComfyUI: plain, modulated, and with a preset besides.

Not on v0.3.64, whose loader knows FLUX at its full width only, so not the demo's model.
"""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from comfy_client import ComfyClient

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PICTURES = 8
KINDS = ("plain", "qrm", "qrm-and-preset")


@pytest.mark.slow
def test_three_sets_of_pictures_differ_by_what_acts_on_the_model(client: ComfyClient) -> None:
    prompt = client.prompt_from_workflow(WORKFLOWS / "Calibri - quality modulation (QRM).json")
    # The training waits, muted, for somebody who wants it.
    assert "CalibriTrainQRM" not in {node["class_type"] for node in prompt.values()}
    result = client.run(prompt)
    shown = {}
    for kind in KINDS:
        (node,) = (
            number
            for number, entry in prompt.items()
            if entry["inputs"].get("filename_prefix") == f"calibri/{kind}"
        )
        files = [client.image(picture) for picture in result.outputs[node]["images"]]
        shown[kind] = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
        assert shown[kind].shape[:3] == (PICTURES, 256, 256)
        assert shown[kind].std() > 1, "pictures of one colour"
    for one, other in combinations(KINDS, 2):
        assert not np.array_equal(shown[one], shown[other]), (one, other)
