"""How well detected things are what a prompt demands, from 0 to 1.

The mean of the facts of a demand (`demands.py`), each with credit for a part:

- a thing that is asked for without a number: 1 where it is found;
- n of a thing: 1 − |found − n| / max(found, n);
- a colour: of the n boxes that have most of it, the mean of twice the colour's share of a box's
  middle, at most 1; a box that is missing counts 0;
- left of, right of, above, below: the distance of the two centres in that direction, in mean widths
  or heights of the two boxes, at most 1; less where the other direction's distance is larger;
- next to: 1 where the boxes touch, 0 where the gap is as wide as their mean size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import nouns
from .demands import ABOVE, BELOW, BESIDE, LEFT, RIGHT, Demand, Relation, Thing

Share = Callable[["Box", str], float]
_HAS_COLOUR = 0.5  # of a box's middle, where things of one name differ by colour


@dataclass(frozen=True)
class Box:
    """A detected thing, in pixels; `score` is how sure the detector is, 0 to 1."""

    label: str
    score: float
    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """x to the right, y down."""
        return self.left + self.width / 2, self.top + self.height / 2


def facts(demand: Demand, boxes: Sequence[Box], share: Share) -> list[tuple[str, float]]:
    """Each fact in words and how far it holds, 0 to 1.

    `share(box, colour)` is the colour's share of the box's middle, 0 to 1.
    """
    found = [_found(thing, demand, boxes, share) for thing in demand.things]
    told = []
    for thing, its in zip(demand.things, found, strict=True):
        told.append((_words(thing), _count(thing, len(its))))
        if thing.colour is not None:
            shares = [min(1.0, 2.0 * share(box, thing.colour)) for box in its[: thing.count]]
            told.append((f"{thing.noun} is {thing.colour}", sum(shares) / thing.count))
    for relation in demand.relations:
        one, other = demand.things[relation.first], demand.things[relation.second]
        first = _coloured(one, found[relation.first], share)
        second = _coloured(other, found[relation.second], share)
        # Two of one name are two boxes. One pair that stands so is enough: which box a detector is
        # surest of says nothing.
        held = [_relation(relation, a, b) for a in first for b in second if b is not a]
        told.append((f"{one.noun} {relation.kind} {other.noun}", max(held, default=0.0)))
    return told


def score(demand: Demand, boxes: Sequence[Box], share: Share) -> float:
    """The mean of `facts`."""
    told = facts(demand, boxes, share)
    return sum(value for _, value in told) / len(told)


def _found(thing: Thing, demand: Demand, boxes: Sequence[Box], share: Share) -> list[Box]:
    """The boxes that may be the thing, the likeliest first."""
    its = [box for box in boxes if nouns.same(thing.noun, box.label)]
    colour = thing.colour
    if colour is None:
        return sorted(its, key=lambda box: -box.score)
    others = [other for other in demand.things if other.noun == thing.noun]
    if len(others) > 1:
        its = [box for box in its if share(box, colour) >= _HAS_COLOUR]
    return sorted(its, key=lambda box: (-share(box, colour), -box.score))


def _coloured(thing: Thing, its: list[Box], share: Share) -> list[Box]:
    """Those of a thing's boxes that have its colour; the nearest to it where none has."""
    colour = thing.colour
    if colour is None:
        return its
    return [box for box in its if share(box, colour) >= _HAS_COLOUR] or its[:1]


def _count(thing: Thing, found: int) -> float:
    if not thing.exact and found >= thing.count:
        return 1.0
    return 1.0 - abs(found - thing.count) / max(found, thing.count)


def _relation(relation: Relation, first: Box, second: Box) -> float:
    (x1, y1), (x2, y2) = first.centre, second.centre
    width, height = (first.width + second.width) / 2, (first.height + second.height) / 2
    right, down = x2 - x1, y2 - y1
    if relation.kind == BESIDE:
        gap = max(abs(right) - width, abs(down) - height, 0.0)
        return max(0.0, 1.0 - gap / max((width + height) / 2, 1e-6))
    along, across, size = {
        LEFT: (right, down, width),
        RIGHT: (-right, down, width),
        ABOVE: (down, right, height),
        BELOW: (-down, right, height),
    }[relation.kind]
    if along <= 0:
        return 0.0
    return min(1.0, along / max(size, 1e-6)) * min(1.0, along / max(abs(across), 1e-6))


def _words(thing: Thing) -> str:
    if not thing.exact:
        return thing.noun
    return f"{thing.count} {thing.noun if thing.count == 1 else nouns.plural(thing.noun)}"
