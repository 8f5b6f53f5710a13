"""The checker as a reward, to judge what was searched with another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..rewards.batch import check_batch
from ..rewards.protocol import Card
from .judges import FACTS, judgements
from .scenes import IMAGE_SIZE


class CheckerReward:
    """The share of its prompt's facts that a picture shows, measured by rules; a `Reward`."""

    name = f"demo {FACTS}"
    differentiable = False
    card = Card(
        meaning="share of its prompt's facts that a picture of the demo shows, measured by rules",
        typical=(0.6, 0.9),
        licence="Apache-2.0",
        memory=0,
        size=IMAGE_SIZE,
        bounds=(0.0, 1.0),
    )

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, 64, 64, 3] in 0..1; prompts in the demo's words."""
        check_batch(self.name, images, prompts)
        if images.shape[1:3] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"{self.name} got images of {images.shape[2]} x {images.shape[1]} pixels; it "
                f"measures the demo's pictures of {IMAGE_SIZE} x {IMAGE_SIZE}."
            )
        pictures = (images.detach().cpu() * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
        return torch.from_numpy(judgements(pictures, prompts)[FACTS])
