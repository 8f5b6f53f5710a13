"""The demo model's world: pictures of one to three coloured shapes, and the words for them.

A `Scene` is the complete truth about a picture (`demo/render.py` draws it). A `Description` is
what a prompt says about it, and it says less: where things stand is open, and a colour, a size
or the background may go unmentioned. That openness is deliberate. If the prompt determined the
picture, flow-matching paths would be nearly straight and the number of sampling steps would not
matter; here the sampler has something to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

IMAGE_SIZE = 64
"""Height and width of a picture in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "green": (30, 150, 60),
    "blue": (40, 70, 220),
    "yellow": (245, 215, 40),
    "purple": (135, 45, 165),
    "orange": (245, 130, 30),
    "cyan": (60, 205, 225),
    "pink": (250, 145, 190),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "gray": (125, 125, 125),
    "brown": (105, 65, 35),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: dict[str, tuple[float, float]] = {"small": (6.5, 8.0), "large": (11.0, 13.0)}
"""Range of an object's radius (half its bounding box) in pixels."""

RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {"two": 2, "three": 3}
MIN_OFFSET = 10.0
"""How many pixels two centres must differ by along an axis for a relation to hold."""
_GAP = 2.5
_MARGIN = 1.5


@dataclass(frozen=True)
class Thing:
    """One drawn object: centre and radius in pixels."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Everything there is to know about a picture."""

    background: str
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Noun:
    """What a prompt says about one object, or about `count` alike; None means left open."""

    shape: str
    colour: str | None = None
    size: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Description:
    """What a prompt says: one or two nouns, perhaps how they stand, perhaps the background."""

    nouns: tuple[Noun, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def objects(self) -> int:
        """How many objects the picture should show."""
        return sum(noun.count for noun in self.nouns)


def holds(relation: str, a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether centre `a` stands in `relation` to centre `b` (pixels, y grows downwards)."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return {
        "left of": -dx >= MIN_OFFSET,
        "right of": dx >= MIN_OFFSET,
        "above": -dy >= MIN_OFFSET,
        "below": dy >= MIN_OFFSET,
    }[relation]


def sample_description(rng: np.random.Generator) -> Description:
    """Draw one of four kinds of prompt: one object, alike objects, two, two with a relation."""
    kind = rng.choice(4, p=(0.2, 0.2, 0.2, 0.4))
    background = None if rng.random() < 0.3 else str(rng.choice(list(BACKGROUNDS)))
    if kind == 0:
        return Description((_noun(rng),), None, background)
    if kind == 1:
        count = int(rng.choice((2, 3)))
        return Description((_noun(rng, count),), None, background)
    first, second = _noun(rng), _noun(rng)
    while first.shape == second.shape and (
        first.colour == second.colour or None in (first.colour, second.colour)
    ):
        second = _noun(rng)
    relation = str(rng.choice(RELATIONS)) if kind == 3 else None
    return Description((first, second), relation, background)


def _noun(rng: np.random.Generator, count: int = 1) -> Noun:
    colour = None if rng.random() < 0.15 else str(rng.choice(list(COLOURS)))
    size = None if rng.random() < 0.35 else str(rng.choice(list(SIZES)))
    if count == 3:
        size = None if size is None else "small"
    return Noun(str(rng.choice(SHAPES)), colour, size, count)


def sample_scene(description: Description, rng: np.random.Generator) -> Scene:
    """Draw a scene that fulfils `description`; whatever it leaves open is drawn at random."""
    while True:
        scene = _try_scene(description, rng)
        if scene is not None:
            return scene


def _try_scene(description: Description, rng: np.random.Generator) -> Scene | None:
    background = description.background or str(rng.choice(list(BACKGROUNDS)))
    things: list[Thing] = []
    for noun in description.nouns:
        # Alike objects share what the prompt leaves open, as a reader would expect.
        colour = noun.colour or str(rng.choice(list(COLOURS)))
        size = noun.size or ("small" if noun.count == 3 else str(rng.choice(list(SIZES))))
        for _ in range(noun.count):
            thing = _place(noun.shape, colour, size, things, rng)
            if thing is None:
                return None
            things.append(thing)
    if description.relation is not None:
        a, b = things
        if not holds(description.relation, (a.x, a.y), (b.x, b.y)):
            return None
    return Scene(background, tuple(things))


def _place(
    shape: str, colour: str, size: str, others: list[Thing], rng: np.random.Generator
) -> Thing | None:
    radius = float(rng.uniform(*SIZES[size]))
    low, high = radius + _MARGIN, IMAGE_SIZE - radius - _MARGIN
    for _ in range(12):
        x, y = (float(v) for v in rng.uniform(low, high, size=2))
        if all(
            max(abs(x - other.x), abs(y - other.y)) >= radius + other.radius + _GAP
            for other in others
        ):
            return Thing(shape, colour, size, x, y, radius)
    return None


_SLOTS: dict[int, tuple[tuple[tuple[float, float], ...], ...]] = {
    1: (((32, 32),),),
    2: (((16, 32), (48, 32)), ((32, 16), (32, 48))),
    3: (
        ((12, 32), (32, 32), (52, 32)),
        ((32, 12), (32, 32), (32, 52)),
        ((32, 18), (16, 46), (48, 46)),
    ),
}
"""Arrangements of one, two and three objects: centres in pixels."""
_JITTER = 1.5


def arrange_scene(description: Description, rng: np.random.Generator) -> Scene:
    """Draw a tidy scene that fulfils `description`: objects stand in one of few arrangements.

    Which arrangement, and who stands where, is open unless the prompt says so; centres are off by
    up to 1.5 pixels. This is what the DiT draws. Scattered scenes (`sample_scene`) ask more of a
    model than so small a one can give, but are what the autoencoder and the reward learn from.
    """
    scene = sample_scene(description, rng)
    while True:
        arrangements = _SLOTS[len(scene.things)]
        slots = arrangements[rng.integers(len(arrangements))]
        order = rng.permutation(len(slots))
        shifts = rng.uniform(-_JITTER, _JITTER, size=(len(slots), 2))
        centres = [
            (slots[i][0] + float(dx), slots[i][1] + float(dy))
            for i, (dx, dy) in zip(order, shifts, strict=True)
        ]
        if description.relation is None or holds(description.relation, *centres):
            break
    things = (replace(thing, x=x, y=y) for thing, (x, y) in zip(scene.things, centres, strict=True))
    return Scene(scene.background, tuple(things))


def sample_pairs(seed: int, arranged: bool = False) -> Iterator[tuple[Description, Scene]]:
    """An endless stream of descriptions and scenes that fulfil them, scattered or arranged."""
    rng = np.random.default_rng(seed)
    while True:
        description = sample_description(rng)
        yield description, (arrange_scene if arranged else sample_scene)(description, rng)
