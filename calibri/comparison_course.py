"""A comparison from its first batch to its last: every cell drawn, scored and kept.

Batches of a setting are drawn by all variants in turn, so what was measured stays paired however
far it came. Finished batches go to a `Keeper`, and a comparison that was cancelled, or that got
another step count or preset, draws only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .comparison import Comparison, Drawn, Painter, Positions, Setting
from .diversity import diversity_of_small, small_images
from .evaluation import BatchTooLargeError, Floats, RewardError, Sample, check_rewards


@dataclass(frozen=True)
class Part:
    """What is kept of a batch: `scores` [B] by reward, `small` images [B, h, w, 3] for diversity,
    `pictures` by place in the batch, seconds of all B, NFE of one."""

    scores: Mapping[str, Floats]
    small: NDArray[np.float32]
    pictures: Mapping[int, NDArray[np.uint8]]
    seconds: float
    nfe: int


class Keeper(Protocol):
    """Where finished batches are kept, so that a cancelled comparison goes on; keys are hashes."""

    def find(self, key: str) -> Part | None: ...

    def keep(self, key: str, part: Part) -> None: ...


@dataclass(frozen=True)
class Cell:
    """What was measured of a variant at a setting.

    `scores` [P, S] by reward, `diversity` [P] (None for one image a prompt), `nfe` of one image,
    `seconds` an image takes (median over batches), `pictures` [<= SHOWN, H, W, 3] of shown cells.
    """

    scores: Mapping[str, Floats]
    diversity: Floats | None
    nfe: int
    seconds: float
    pictures: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progressed:
    """A batch that has just ended: `images` [B, H, W, 3] are None where it was kept earlier."""

    done: int
    total: int
    variant: int
    setting: int
    batch: Positions
    images: NDArray[np.uint8] | None = None


Cells = dict[tuple[int, int], Cell]
"""By (variant, setting)."""


def compare(
    comparison: Comparison,
    painter: Painter,
    keeper: Keeper | None = None,
    on_batch: Callable[[Progressed], None] | None = None,
) -> Cells:
    """Draw and score every cell. What the painter or the callback raises comes through.

    Raises RewardError for scores that are not one finite number per image.
    """
    gathered: dict[tuple[int, int], _Cell] = {}
    bucket, done, turn = comparison.samples, 0, 0
    for number, setting in enumerate(comparison.settings):
        for batch in _planned(painter, setting, bucket):
            # Whoever comes first may still wait for something that loads: take turns.
            order = range(len(comparison.variants))
            for variant in [(turn + place) % len(order) for place in order]:
                cell = (variant, number)
                part, images = _part(comparison, painter, keeper, cell, batch, bucket)
                gathered.setdefault(cell, _Cell()).add(batch, part)
                done += len(batch)
                if on_batch is not None:
                    total = comparison.images
                    on_batch(Progressed(done, total, variant, number, batch, images))
            turn += 1
    return {cell: gathered[cell].whole(comparison) for cell in sorted(gathered)}


def _planned(painter: Painter, setting: Setting, bucket: Sequence[Sample]) -> list[Positions]:
    batches = painter.plan(setting, bucket)
    if sorted(p for batch in batches for p in batch) != list(range(len(bucket))):
        raise ValueError("The painter's batches must hold every position exactly once.")
    return batches


def _part(
    comparison: Comparison,
    painter: Painter,
    keeper: Keeper | None,
    cell: tuple[int, int],
    batch: Positions,
    everything: Sequence[Sample],
) -> tuple[Part, NDArray[np.uint8] | None]:
    """A batch of a cell, kept or drawn now; its images where it was drawn."""
    variant, setting = cell[0], comparison.settings[cell[1]]
    bucket = [everything[position] for position in batch]
    texts = [comparison.prompts[sample.prompt] for sample in bucket]
    wanted = comparison.pictured(cell)
    pictured = [place for place, position in enumerate(batch) if position in wanted]
    key = _key(painter.mark(variant), setting, comparison.rewards, texts, bucket)
    kept = None if keeper is None else keeper.find(key)
    if kept is not None and set(pictured) <= kept.pictures.keys():
        return kept, None
    drawn = _draw(painter, variant, setting, bucket)
    pairs = tuple((variant, position) for position in batch)
    scores: dict[str, Floats] = {}
    for name in comparison.rewards:
        if name not in drawn.scores:
            raise RewardError(f"The painter gave no scores of the reward {name}.")
        scores[name] = check_rewards(drawn.scores[name], pairs, name, texts)
    pictures = {place: drawn.images[place].copy() for place in pictured}
    part = Part(scores, small_images(drawn.images), pictures, drawn.seconds, drawn.nfe)
    if keeper is not None:
        keeper.keep(key, part)
    return part, drawn.images


def _draw(painter: Painter, variant: int, setting: Setting, bucket: Sequence[Sample]) -> Drawn:
    """The batch in as few pieces as memory allows."""
    try:
        return painter.draw(variant, setting, bucket)
    except BatchTooLargeError:
        if len(bucket) < 2:
            raise
    half = (len(bucket) + 1) // 2
    pieces = [_draw(painter, variant, setting, b) for b in (bucket[:half], bucket[half:])]
    return Drawn(
        images=np.concatenate([piece.images for piece in pieces]),
        scores={
            name: np.concatenate([piece.scores[name] for piece in pieces])
            for name in pieces[0].scores
        },
        seconds=sum(piece.seconds for piece in pieces),
        nfe=pieces[0].nfe,
    )


def _key(
    mark: str,
    setting: Setting,
    rewards: Sequence[str],
    texts: Sequence[str],
    bucket: Sequence[Sample],
) -> str:
    seeds = [sample.seed for sample in bucket]
    told = [mark, asdict(setting), list(rewards), list(texts), seeds]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:40]


@dataclass
class _Cell:
    """A cell while its batches come in, in the plan's order."""

    parts: list[tuple[Positions, Part]] = field(default_factory=list)

    def add(self, batch: Positions, part: Part) -> None:
        self.parts.append((batch, part))

    def whole(self, comparison: Comparison) -> Cell:
        shape = (len(comparison.prompts), comparison.images_per_prompt)
        order = np.argsort([position for batch, _ in self.parts for position in batch])
        scores = {
            name: np.concatenate([part.scores[name] for _, part in self.parts])[order]
            for name in comparison.rewards
        }
        small = np.concatenate([part.small for _, part in self.parts])[order]
        pictures = {
            batch[place]: picture
            for batch, part in self.parts
            for place, picture in part.pictures.items()
        }
        return Cell(
            scores={name: values.reshape(shape) for name, values in scores.items()},
            diversity=None
            if shape[1] < 2
            else diversity_of_small(small.reshape(*shape, *small.shape[1:])),
            nfe=self.parts[0][1].nfe,
            seconds=float(np.median([part.seconds / len(batch) for batch, part in self.parts])),
            pictures=np.stack([pictures[p] for p in sorted(pictures)]) if pictures else None,
        )
