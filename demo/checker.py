"""The judge: does the picture show what the prompt says? No learning, only pixels and templates.

Frozen before the first search. It is never used in training or searching, so a gain that it sees
is not one that a search has talked a reward model into.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .render import coverage
from .scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Description, Noun, holds

_FOREGROUND = 45.0
"""Distance in RGB from the background's colour at which a pixel counts as drawn."""
_SMALLEST = 12
"""Fewer pixels than this are a speck, not an object."""
_SIZE_LIMIT = (SIZES["small"][1] + SIZES["large"][0]) / 2
_EXTENT = {
    "circle": (1.0, 1.0, 1.0),
    "square": (0.9, 0.9, 0.9),
    "triangle": (1.0, 0.95, 0.95),
    "star": (0.951, 1.0, 0.809),
    "cross": (0.97, 0.97, 0.97),
    "ring": (1.0, 1.0, 1.0),
}
"""Half width, reach above and reach below the centre of each shape, in radii (`render.py`)."""
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_GROUNDS = np.array(list(BACKGROUNDS.values()), dtype=np.float32)


@dataclass(frozen=True)
class Found:
    """One object seen in a picture; `fit` is the best template's overlap (IoU, 0…1)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    fit: float


@dataclass(frozen=True)
class Verdict:
    """`facts`: fraction of what the prompt states that the picture shows, 0…1; `all_facts`: 0 or 1;

    `fit`: mean template overlap of the objects, 0…1 (0 where nothing is drawn).
    """

    facts: float
    all_facts: float
    fit: float


def look(picture: NDArray[np.uint8]) -> tuple[str, list[Found]]:
    """Name the background and the objects of a picture [64, 64, 3] in 0…255."""
    pixels = picture.astype(np.float32)
    rim = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    rim = np.concatenate([rim, pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3)])
    ground = np.median(rim, axis=0)
    background = list(BACKGROUNDS)[int(np.linalg.norm(_GROUNDS - ground, axis=1).argmin())]
    drawn = np.linalg.norm(pixels - ground, axis=-1) > _FOREGROUND
    labels, count = ndimage.label(drawn, structure=np.ones((3, 3)))
    found = [_name(pixels, ground, labels == i) for i in range(1, count + 1)]
    return background, [thing for thing in found if thing is not None]


def _name(
    pixels: NDArray[np.float32], ground: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Found | None:
    if mask.sum() < _SMALLEST:
        return None
    inner = ndimage.binary_erosion(mask)
    colour = np.median(pixels[inner if inner.sum() >= 4 else mask], axis=0)
    # How much of each pixel is object: edges blend with the background.
    axis = colour - ground
    alpha = np.clip((pixels - ground) @ axis / (axis @ axis), 0, 1)
    alpha *= ndimage.binary_dilation(mask, structure=np.ones((3, 3)))
    left, right = _bounds(alpha.max(0))
    top, bottom = _bounds(alpha.max(1))
    fits = {shape: _fit(alpha, shape, left, right, top, bottom) for shape in SHAPES}
    shape = max(fits, key=lambda name: fits[name][0])
    fit, radius = fits[shape]
    return Found(
        shape=shape,
        colour=list(COLOURS)[int(np.linalg.norm(_PALETTE - colour, axis=1).argmin())],
        size="small" if radius < _SIZE_LIMIT else "large",
        x=(left + right) / 2,
        y=(top + bottom) / 2,
        fit=fit,
    )


def _bounds(profile: NDArray[np.float32]) -> tuple[float, float]:
    """Where an object begins and ends along an axis, to a fraction of a pixel."""
    seen = np.flatnonzero(profile > 0.15)
    first, last = int(seen[0]), int(seen[-1])
    return first + 1 - float(profile[first]), last + float(profile[last])


def _fit(
    alpha: NDArray[np.float32], shape: str, left: float, right: float, top: float, bottom: float
) -> tuple[float, float]:
    """Best overlap (soft IoU) of a template that fills the bounds, and its radius in pixels."""
    half_width, above, below = _EXTENT[shape]
    radius = 0.5 * ((right - left) / (2 * half_width) + (bottom - top) / (above + below))
    x, y = (left + right) / 2, (top + bottom) / 2 + radius * (above - below) / 2
    best = 0.0
    for dx, dy in itertools.product((-0.4, 0.0, 0.4), repeat=2):
        template = coverage(shape, x + dx, y + dy, radius)
        both = np.minimum(alpha, template).sum()
        best = max(best, float(both / (alpha.sum() + template.sum() - both)))
    return best, radius


def check(picture: NDArray[np.uint8], description: Description) -> Verdict:
    """Judge a picture [64, 64, 3] in 0…255 against what its prompt says."""
    background, found = look(picture)
    wanted = [noun for noun in description.nouns for _ in range(noun.count)]
    slots: list[Found | None] = [*found, *([None] * len(wanted))]
    best = max(
        (
            _object_facts(wanted, chosen, description.relation)
            for chosen in itertools.permutations(slots[: len(wanted) + 6], len(wanted))
        ),
        key=sum,
    )
    facts = [*best, len(found) == len(wanted)]
    if description.background is not None:
        facts.append(background == description.background)
    return Verdict(
        facts=sum(facts) / len(facts),
        all_facts=float(all(facts)),
        fit=float(np.mean([thing.fit for thing in found])) if found else 0.0,
    )


def _object_facts(
    wanted: list[Noun], chosen: tuple[Found | None, ...], relation: str | None
) -> list[bool]:
    facts: list[bool] = []
    for noun, thing in zip(wanted, chosen, strict=True):
        facts.append(thing is not None and thing.shape == noun.shape)
        if noun.colour is not None:
            facts.append(thing is not None and thing.colour == noun.colour)
        if noun.size is not None:
            facts.append(thing is not None and thing.size == noun.size)
    if relation is not None:
        a, b = chosen
        facts.append(a is not None and b is not None and holds(relation, (a.x, a.y), (b.x, b.y)))
    return facts
