"""The workflow that scores pictures and keeps the best, in a real ComfyUI.

Not on v0.3.64, whose loader knows FLUX at its full width only, so not the demo's model.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from comfy_client import ComfyClient, PromptResult

WORKFLOW = (
    Path(__file__).resolve().parents[2] / "workflows" / "Calibri - score and pick images.json"
)


@pytest.mark.slow
def test_the_best_four_of_sixteen_are_kept(client: ComfyClient) -> None:
    prompt = client.prompt_from_workflow(WORKFLOW)
    result = client.run(prompt)
    every, best = (_pictures(client, result, prompt, name) for name in ("all", "best"))
    assert (len(every), len(best)) == (16, 4)
    texts = [shown["text"][0] for shown in result.outputs.values() if "text" in shown]
    (plain,) = (text for text in texts if text.startswith("demo reward"))
    (turned,) = (text for text in texts if text.startswith("turned over (workflow "))
    scores, others = _scores(plain), _scores(turned)
    assert len(scores) == len(others) == 16
    assert scores != others
    order = np.argsort(scores)[::-1][:4]
    for picture, place in zip(best, order, strict=True):
        assert np.array_equal(picture, every[place])


def _scores(text: str) -> list[float]:
    return [float(line.split(": ")[1]) for line in text.splitlines()[1:]]


def _pictures(
    client: ComfyClient, result: PromptResult, prompt: dict[str, Any], name: str
) -> list[np.ndarray]:
    """What the Save Image of that prefix saved, each [H, W, 3]."""
    (node,) = (
        number
        for number, entry in prompt.items()
        if entry["inputs"].get("filename_prefix") == f"calibri/{name}"
    )
    return [
        np.asarray(Image.open(io.BytesIO(client.image(shown))).convert("RGB"))
        for shown in result.outputs[node]["images"]
    ]
