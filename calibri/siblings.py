"""What a preset says about a sibling of its model: the same family with other numbers of blocks.

A kind of block that both have as often keeps its names. Elsewhere block i of n takes what the
preset has at the same relative depth, i / (n − 1), between the two blocks nearest to it that have
this branch. What the preset's model does not have begins at 1, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .coefficients import GRANULARITIES, CoefficientError, CoefficientSpace, Vector
from .ensemble_space import EnsembleSpaceError
from .preset_metadata import Preset
from .presets import PresetError, describe_backbone


@dataclass(frozen=True)
class Carried:
    """The members' vectors [M, N], and how many of the N coefficients come from where."""

    rows: Vector
    by_name: int
    by_depth: int
    absent: int


def is_sibling(preset: Preset, space: CoefficientSpace) -> bool:
    """Whether the preset is of this family, and of other numbers of blocks."""
    backbone = space.backbone
    return preset.family == backbone.family and dict(preset.blocks) != dict(backbone.blocks)


def carry_over(preset: Preset, space: CoefficientSpace) -> Carried:
    """The preset's members as vectors of a sibling's `space`, of the same or a finer granularity.

    Raises EnsembleSpaceError for a preset of a finer one, PresetError for values out of bounds.
    """
    if GRANULARITIES.index(preset.granularity) > GRANULARITIES.index(space.granularity):
        raise EnsembleSpaceError(
            f"start_from has coefficients of granularity {preset.granularity!r} for another number "
            f"of blocks, and {space.granularity!r} is coarser: set granularity to "
            f"{preset.granularity!r}."
        )
    rows, sources = [], list[str]()
    for member in preset.members:
        values, sources = _member(member.coefficients, preset, space)
        try:
            rows.append(space.vector(dict(zip(space.names, values, strict=True))))
        except CoefficientError as error:
            raise PresetError(f"The preset does not fit the model: {error}") from error
    return Carried(np.stack(rows), *(sources.count(s) for s in ("name", "depth", "absent")))


def describe_start(preset: Preset, space: CoefficientSpace, fingerprint: str) -> str:
    """What a search that starts at `preset` takes over from it, in a sentence.

    `fingerprint` is the model's (`presets.fingerprint`).
    """
    named = f"the preset {preset.title!r}" if preset.title else "the preset of start_from"
    if is_sibling(preset, space):
        carried = carry_over(preset, space)
        parts = [
            f"{count} {how}"
            for count, how in (
                (carried.by_name, "by name"),
                (carried.by_depth, "by relative depth"),
                (carried.absent, "unknown to it and left at 1"),
            )
            if count
        ]
        where = describe_backbone(preset.family, preset.blocks)
        return (
            f"It began at {named} of a sibling model, {where}: of {len(space.names)} coefficients "
            f"{', '.join(parts)}."
        )
    if preset.fingerprint and preset.fingerprint != fingerprint:
        return f"It began at {named}, which was found on another model of this kind."
    return f"It began at {named}."


def _member(
    coefficients: Mapping[str, float], preset: Preset, space: CoefficientSpace
) -> tuple[list[float], list[str]]:
    """A member's N values, and where each comes from: "name", "depth" or "absent"."""
    values, sources = [], []
    for name in space.names:
        kind, index, *ending = name.split(".")
        # A coarser preset has one coefficient for all that share the beginning of a name.
        known = ending[: GRANULARITIES.index(preset.granularity)]
        source, value = "absent", 1.0
        if preset.blocks.get(kind) == space.backbone.blocks[kind]:
            whole = ".".join([kind, index, *known])
            if whole in coefficients:
                source, value = "name", coefficients[whole]
        elif kind in preset.blocks:
            at = int(index) / max(space.backbone.blocks[kind] - 1, 1)
            places = _places(coefficients, kind, known)
            if places:
                depths = [i / max(preset.blocks[kind] - 1, 1) for i in places]
                source, value = "depth", float(np.interp(at, depths, list(places.values())))
        values.append(value)
        sources.append(source)
    return values, sources


def _places(coefficients: Mapping[str, float], kind: str, ending: list[str]) -> dict[int, float]:
    """The coefficients of one branch by block, in order."""
    found = {}
    for name, value in coefficients.items():
        k, index, *rest = name.split(".")
        if k == kind and rest == ending and index.isdecimal():
            found[int(index)] = value
    return dict(sorted(found.items()))
