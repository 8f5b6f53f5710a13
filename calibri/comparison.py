"""Plain and calibrated side by side: the same prompts and noise over steps, cfg, samplers, sizes.

A *variant* is the plain model or one with a preset on it, a *setting* is how images are sampled, a
*cell* is a variant at a setting. Every cell draws the same samples from the same noise in the same
batches, so all differences between variants are paired. `Painter` is whoever draws and scores:
ComfyUI's sampler behind the node, the demo's own behind the command line. `comparison_course.py`
drives it, `comparison_report.py` turns what was measured into numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .evaluation import Floats, Sample, samples

Positions = tuple[int, ...]
"""Places of a batch in `Comparison.samples`."""

PLAIN = "plain"
SHOWN = 8  # prompts in the grid
_NAME = 60  # characters: a title may have thousands


class ComparisonError(ValueError):
    """What is to be compared does not make a comparison."""


@dataclass(frozen=True)
class Setting:
    """How the images of a cell are sampled; `width` and `height` in pixels, the rest as KSampler's.

    `cfg` is 1 for models without classifier-free guidance.
    """

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    width: int
    height: int


@dataclass(frozen=True)
class Comparison:
    """What is compared. Variant 0 is the plain model, named `PLAIN`; names are unique.

    `rewards` are names, the first being the one that matters most. The grid shows the first image
    of the first `SHOWN` prompts for the cells `shown`, each a (variant, setting), in that order.
    Raises ComparisonError for fewer than two different prompts, of which no interval can be made,
    for names that are not unique and where there are no settings or images.
    """

    variants: tuple[str, ...]
    settings: tuple[Setting, ...]
    prompts: tuple[str, ...]
    rewards: tuple[str, ...]
    images_per_prompt: int = 2
    seed: int = 0
    shown: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.prompts)) < 2:
            raise ComparisonError(
                f"The evaluation has {len(set(self.prompts))} prompt, and intervals are over "
                "different prompts: connect at least two, better thirty."
            )
        for what, names in (("variants", self.variants), ("rewards", self.rewards)):
            if not names or len(set(names)) < len(names):
                raise ComparisonError(
                    f"The {what} {', '.join(map(repr, names))} are not told apart by their names: "
                    "give each a name of its own."
                )
        if not self.settings or self.images_per_prompt < 1:
            raise ComparisonError(
                f"The evaluation has {len(self.settings)} settings and {self.images_per_prompt} "
                "images for each prompt: give at least one of both."
            )

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What every cell draws, prompt by prompt [P * S]; the noise of a prompt stays the same
        when prompts are added behind it."""
        rows = [p for p in range(len(self.prompts)) for _ in range(self.images_per_prompt)]
        return samples(self.seed, "evaluation", 0, rows)

    @property
    def images(self) -> int:
        """How many images all of it draws."""
        per_cell = len(self.prompts) * self.images_per_prompt
        return len(self.variants) * len(self.settings) * per_cell

    def pictured(self, cell: tuple[int, int]) -> frozenset[int]:
        """The positions whose pictures the grid shows of this cell."""
        if cell not in self.shown:
            return frozenset()
        shown = range(min(SHOWN, len(self.prompts)))
        return frozenset(prompt * self.images_per_prompt for prompt in shown)


@dataclass(frozen=True)
class Drawn:
    """One batch of one cell, as a painter gives it.

    `images` [B, H, W, 3]; `scores` [B] by reward; `seconds` that sampling and decoding took,
    without loading and scoring; `nfe`, evaluations of the network for each image: steps x members,
    x 2 under classifier-free guidance, more for samplers that evaluate several times a step.
    """

    images: NDArray[np.uint8]
    scores: Mapping[str, Floats]
    seconds: float
    nfe: int


def variant_names(titles: Sequence[str]) -> tuple[str, ...]:
    """`PLAIN` and a short name of its own for each preset, made of their titles."""
    names = [PLAIN]
    for number, title in enumerate(titles, 1):
        words = " ".join(title.replace(".safetensors", "").split()) or f"preset {number}"
        name = words if len(words) <= _NAME else words[: _NAME - 1] + "…"
        again = 2
        while name in names:
            name, again = f"{words[: _NAME - 5]} ({again})", again + 1
        names.append(name)
    return tuple(names)


class Painter(Protocol):
    """Draws and scores: all that a comparison asks of a host."""

    def mark(self, variant: int) -> str:
        """All, beside settings, prompts and seeds, that decides pictures and scores: a hash of
        model, text encoder, VAE, preset, negative prompt, rewards. Kept results are known by it."""
        ...

    def plan(self, setting: Setting, bucket: Sequence[Sample]) -> list[Positions]:
        """Split the positions of `bucket` into batches that fit in memory for every variant.

        Depends on its arguments only: kept results are of these batches.
        """
        ...

    def draw(self, variant: int, setting: Setting, bucket: Sequence[Sample]) -> Drawn:
        """Draw and score `bucket`, a batch of the plan or half of one. `Sample.prompt` indexes
        `Comparison.prompts`, `Sample.seed` seeds all of an image's noise.

        Variant 0 is the plain model to the last bit. May raise anything, an interrupt for instance:
        what was kept before is found again. Raises BatchTooLargeError to be called with halves.
        """
        ...
