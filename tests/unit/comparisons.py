"""A painter without a model: its pictures and scores follow from variant, setting and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from comfyui_calibri.calibri.comparison import PLAIN, Comparison, Drawn, Positions, Setting
from comfyui_calibri.calibri.comparison_course import Cells
from comfyui_calibri.calibri.evaluation import BatchTooLargeError, Floats, Sample

SIDE = 8  # pixels of its pictures
# Of plain and one preset, by steps.
QUALITY = ({2: 0.0, 4: 1.0}, {2: 1.0, 4: 1.5})


def setting(steps: int, cfg: float = 1.0) -> Setting:
    return Setting(steps, cfg, "euler", "simple", SIDE, SIDE)


def comparison(
    steps: Sequence[int] = (2, 4), variants: int = 2, prompts: int = 6, images: int = 2
) -> Comparison:
    """A small comparison of "plain", "preset 1" … by "likeness" and "brightness"."""
    return Comparison(
        variants=(PLAIN, *(f"preset {number}" for number in range(1, variants))),
        settings=tuple(setting(count) for count in steps),
        prompts=tuple(f"prompt {number}" for number in range(prompts)),
        rewards=("likeness", "brightness"),
        images_per_prompt=images,
        shown=tuple((variant, 0) for variant in range(variants)),
    )


@dataclass
class ToyPainter:
    """`quality[variant]` maps steps to the mean of "likeness"; each sample adds noise of its own.

    `most`: images that fit in memory. `spread[variant]`: how far pictures of two seeds differ.
    """

    quality: Sequence[dict[int, float]]
    most: int = 100
    size: int = 5
    noise: float = 1.0
    spread: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    calls: list[tuple[int, Setting, tuple[Sample, ...]]] = field(default_factory=list)

    def mark(self, variant: int) -> str:
        return f"toy {variant}"

    def plan(self, setting: Setting, bucket: Sequence[Sample]) -> list[Positions]:
        places = range(len(bucket))
        return [tuple(places[i : i + self.size]) for i in range(0, len(bucket), self.size)]

    def draw(self, variant: int, setting: Setting, bucket: Sequence[Sample]) -> Drawn:
        self.calls.append((variant, setting, tuple(bucket)))
        if len(bucket) > self.most:
            raise BatchTooLargeError("too many for the toy")
        luck = np.array([_luck(sample) for sample in bucket])
        likeness: Floats = self.quality[variant][setting.steps] + self.noise * luck
        grey = 128 + 60 * self.spread[variant] * luck
        pictures = np.broadcast_to(grey[:, None, None, None], (len(bucket), SIDE, SIDE, 3))
        return Drawn(
            images=pictures.astype(np.uint8),
            scores={"likeness": likeness, "brightness": grey / 255},
            seconds=0.1 * setting.steps * len(bucket),
            nfe=setting.steps,
        )


def _luck(sample: Sample) -> float:
    """In −1 … 1, the same for all variants."""
    return float(np.random.default_rng(sample.seed).uniform(-1, 1))


def assert_equal(one: Cells, other: Cells) -> None:
    """To the last bit."""
    assert one.keys() == other.keys()
    for cell, found in one.items():
        for name, scores in found.scores.items():
            np.testing.assert_array_equal(scores, other[cell].scores[name])
        np.testing.assert_array_equal(found.diversity, other[cell].diversity)
        assert (found.nfe, found.seconds) == (other[cell].nfe, other[cell].seconds)
        assert (found.pictures is None) == (other[cell].pictures is None)
        if found.pictures is not None:
            np.testing.assert_array_equal(found.pictures, other[cell].pictures)
