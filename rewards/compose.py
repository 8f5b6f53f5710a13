"""Rewards made of rewards: a weighted sum on one scale, and a floor under a second reward.

Scales differ by orders of magnitude (PickScore varies by 1, HPSv2 by 0.02), so each part is counted
in its own spread on images of the plain model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .batch import check_pixels, check_scores
from .protocol import Card, Reward
from .weights_mark import weights_together


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a reward on the plain model's images.

    Rounded, the deviation to 3 digits and the mean to its hundredths, so that images which differ
    in their last bits give a reward of the same name.
    """

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.12g} ± {self.deviation:g}"

    @classmethod
    def measure(cls, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Spread:
        """From two or more `images` [B, H, W, 3]; ValueError where they all score alike."""
        check_pixels(reward, reward.name)
        if len(images) < 2:
            raise ValueError(
                f"{reward.name} cannot be put on a scale by {len(images)} image; connect a batch "
                "of at least 2 images of the plain model, better 16."
            )
        scores = check_scores(reward.name, reward.score(images, prompts), len(images)).double()
        mean, deviation = float(scores.mean()), float(scores.std())
        if deviation <= 1e-6 * max(1e-3, float(scores.abs().max())):
            raise ValueError(
                f"{reward.name} scores all {len(images)} images {mean:.4g}, so it has no scale and "
                "nothing to raise; connect images that differ, of several prompts and seeds."
            )
        hundredths = 2 - math.floor(math.log10(deviation))
        return cls(round(mean, hundredths), float(f"{deviation:.3g}"))


@dataclass(frozen=True)
class Part:
    """One summand: a negative `weight` makes its reward something to avoid."""

    reward: Reward
    weight: float
    spread: Spread


class WeightedSum:
    """Σ weight · (score − mean) / deviation; 0 is an average image of the plain model."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """ValueError without a part that counts."""
        self._parts = tuple(part for part in parts if part.weight)
        if not self._parts or not all(math.isfinite(part.weight) for part in self._parts):
            raise ValueError("Every weight is 0, so nothing is rewarded; give one part a weight.")

    @property
    def name(self) -> str:
        """All that the scores depend on, so that no journal mixes two sums."""
        return " ".join(
            f"{part.weight:+g} {part.reward.name} ({part.spread})" for part in self._parts
        )

    @property
    def weights(self) -> str:
        """The marks of its parts' weights."""
        return weights_together([part.reward for part in self._parts])

    @property
    def differentiable(self) -> bool:
        """Whether all parts are."""
        return all(part.reward.differentiable for part in self._parts)

    @property
    def card(self) -> Card:
        """Typical is one total weight about 0; memory and licences add up."""
        total = sum(abs(part.weight) for part in self._parts)
        return _together(
            [part.reward for part in self._parts],
            "weighted sum, each part in spreads of the plain model's images",
            (-total, total),
        )

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 for their prompts."""
        total: Tensor | None = None
        for part in self._parts:
            scores = check_scores(part.reward.name, part.reward.score(images, prompts), len(images))
            scores = part.weight * (scores - part.spread.mean) / part.spread.deviation
            total = scores if total is None else total + scores.to(total.device)
        assert total is not None  # __init__ saw to it
        return total


class Floor:
    """`reward`, less a penalty where `guard` falls below the plain model's mean.

    An image one spread below loses `strength` spreads of `reward`; above there is nothing to win.
    """

    def __init__(
        self,
        reward: Reward,
        spread: Spread,
        guard: Reward,
        guard_spread: Spread,
        strength: float,
        tolerance: float,
    ) -> None:
        """`tolerance`: how many of the guard's spreads below its mean are still free."""
        self._reward, self._guard = reward, guard
        self._floor = guard_spread.mean - tolerance * guard_spread.deviation
        self._slope = strength * spread.deviation / guard_spread.deviation

    @property
    def name(self) -> str:
        """All that the scores depend on."""
        return (
            f"{self._reward.name} while {self._guard.name} >= {self._floor:.12g} "
            f"(slope {self._slope:.4g})"
        )

    @property
    def weights(self) -> str:
        """The marks of both rewards' weights."""
        return weights_together([self._reward, self._guard])

    @property
    def differentiable(self) -> bool:
        """Whether both are."""
        return self._reward.differentiable and self._guard.differentiable

    @property
    def card(self) -> Card:
        """The reward's own scale; memory and licences of both."""
        card = self._reward.card
        meaning = f"{card.meaning}, less where {self._guard.name} falls"
        return _together([self._reward, self._guard], meaning, card.typical)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 for their prompts."""
        count = len(images)
        scores = check_scores(self._reward.name, self._reward.score(images, prompts), count)
        guard = check_scores(self._guard.name, self._guard.score(images, prompts), count)
        short = (self._floor - guard.to(scores.device)).clamp(min=0.0)
        return scores - self._slope * short


def _together(rewards: Sequence[Reward], meaning: str, typical: tuple[float, float]) -> Card:
    cards = [reward.card for reward in rewards]
    return Card(
        meaning=meaning,
        typical=typical,
        licence="; ".join(dict.fromkeys(card.licence for card in cards)),
        memory=sum(card.memory for card in cards),
        size=max((card.size for card in cards if card.size is not None), default=None),
    )
