"""What Calibri asks of a reward: one number per image, larger is better.

The search (`calibri/`) never sees images; an evaluator draws them and hands them to a `Reward`.
Implementations live beside this file or, for the demo's, in `demo/reward.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


UNBOUNDED = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class Card:
    """What a person should know of a reward before they use it. Higher is always better.

    `typical`: scores of a poor and of a good image. `bounds`: no score lies outside. `memory`:
    bytes of the loaded weights. `size`: pixels along the side of what the network sees; images of
    another size are scaled to it; None where there is no such size.
    """

    meaning: str
    typical: tuple[float, float]
    licence: str
    memory: int
    size: int | None
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def range(self) -> str:
        """`typical` and `bounds` in words, after "Higher is better, "."""
        (poor, good), (lowest, highest) = self.typical, self.bounds
        never = f", never outside {lowest:g} to {highest:g}" if self.bounds != UNBOUNDED else ""
        return f"typically {poor:g} to {good:g}{never}"


class RewardUnavailableError(RuntimeError):
    """The reward cannot be asked now: its server or its worker is gone.

    The same batch may be scored later, so a calibration pauses and keeps everything.
    """


@runtime_checkable
class Reward(Protocol):
    """Scores images against their prompts.

    A reward whose attribute `accepts` is "latents" gets what the sampler made, [B, C, h, w], in the
    place of images: Calibrate then decodes nothing. Without the attribute it gets pixels. One whose
    attribute `weights` marks its weights (`weights_mark.py`) is told from another of its name.
    """

    @property
    def name(self) -> str:
        """Names the reward in journals, presets and reports; changes when its answers change."""

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow from `score` back to the images."""

    @property
    def card(self) -> Card:
        """Range and meaning, licence and needs."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score `images` [B, H, W, 3], float in 0..1, against one prompt each: [B] floats.

        A row's score depends on that row alone. Raises ValueError with a sentence that says the
        mend where a prompt or an image size is not one the reward understands.
        """


@runtime_checkable
class NetworkReward(Reward, Protocol):
    """A reward that is one network: whoever holds it moves `network`, and `score` follows."""

    @property
    def network(self) -> nn.Module:
        """All of the reward's weights; `score` computes on their device."""
