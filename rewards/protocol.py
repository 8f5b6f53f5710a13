"""What Calibri asks of a reward: one number per image, larger is better.

The search (`calibri/`) never sees images; an evaluator draws them and hands them to a `Reward`.
Implementations live beside this file or, for the demo's, in `demo/reward.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Reward(Protocol):
    """Scores images against their prompts."""

    @property
    def name(self) -> str:
        """Names the reward in journals, presets and reports; changes when its answers change."""

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow from `score` back to the images."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score `images` [B, H, W, 3], float in 0..1, against one prompt each: [B] floats.

        A row's score depends on that row alone. Raises ValueError with a sentence that says the
        mend where a prompt or an image size is not one the reward understands.
        """
