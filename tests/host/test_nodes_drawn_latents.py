"""Latents that were drawn lately are not drawn again, and are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.drawn_latents import DrawnLatents
from comfyui_calibri.nodes.sampling import ComfyEvaluator

from .test_nodes_calibrate_judges import Darkness
from .test_nodes_calibrate_judges import inputs as inputs
from .tiny_fixtures import inference as inference

pytestmark = pytest.mark.oldest

BUCKET = [Sample(0, 10), Sample(1, 11)]
VECTORS = np.array([[1.0, 2.0], [3.0, 4.0]])


class Painter:
    """Counts what it draws; each drawing differs."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> torch.Tensor:
        self.drawn += 1
        return torch.full((2, 4), float(self.drawn))


def test_a_batch_is_known_by_its_coefficients_and_samples() -> None:
    latents, draw = DrawnLatents(), Painter()
    batch = ((0, 0), (1, 1))
    first = latents.of(batch, VECTORS, BUCKET, draw)
    # Candidates have other numbers in another evaluation, and the same coefficients.
    again = latents.of(((1, 0), (0, 1)), VECTORS[::-1], list(BUCKET), draw)
    assert draw.drawn == 1
    assert torch.equal(first, again)
    again.zero_()  # what is done to the latents is not done to those that are kept
    assert torch.equal(latents.of(batch, VECTORS, BUCKET, draw), first)
    for others in [(VECTORS + 1, BUCKET), (VECTORS, BUCKET[::-1])]:
        latents.of(batch, *others, draw)
    latents.of(batch[:1], VECTORS, BUCKET, draw)
    assert draw.drawn == 4


def test_the_oldest_give_way() -> None:
    latents, draw = DrawnLatents(most=2 * 32), Painter()
    first, second, third = (((0, 0),), ((1, 0),), ((0, 1),))
    for batch in (first, second, first, third, first):
        latents.of(batch, VECTORS, BUCKET, draw)
    assert draw.drawn == 3
    latents.of(second, VECTORS, BUCKET, draw)
    assert draw.drawn == 4


def test_judges_look_at_the_confirmations_latents(
    inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    sample = ComfyEvaluator._sample

    def counted(self: Any, batch: Any, vectors: Any, bucket: Any) -> torch.Tensor:
        rows.append(len(batch))
        return sample(self, batch, vectors, bucket)

    monkeypatch.setattr(ComfyEvaluator, "_sample", counted)
    inputs |= {"keep_anyway": True, "generations": 1, "validate_every": 1}
    one = CalibriCalibrate.execute(**inputs, other_reward_1=Darkness()).args[0]
    drawn = sum(rows)
    rows.clear()

    class Gloom(Darkness):
        name = "gloom"

    inputs |= {"run_name": "another", "other_reward_1": Darkness(), "other_reward_2": Gloom()}
    two = CalibriCalibrate.execute(**inputs).args[0]
    assert sum(rows) == drawn
    assert two.rewards[:2] == one.rewards
