"""Where a search begins that goes on from a preset, member by member.

Calibrate one member first, which has N coefficients to find; then give it a companion and search
both. The start is the preset's own model: each new member is a copy of the one with the greatest
weight and takes an equal share of it. Copies with a share have a gradient from the first
generation, which a new member of weight 0 has not: on the toy of tests/unit/test_ensemble_search.py
960 evaluations left 0.7 of the gap that they left to a new member without a share. A preset of a
sibling model starts a search too (`siblings.py`).
"""

from __future__ import annotations

import numpy as np

from .coefficients import CoefficientSpace, Vector
from .ensemble_space import EnsembleSpaceError
from .preset_metadata import MAX_WEIGHT, Guidance, Preset
from .presets import check_preset
from .siblings import carry_over, is_sibling


def warm_start(
    preset: Preset, space: CoefficientSpace, members: int, guidance: Guidance | None
) -> Vector:
    """The preset's model as a vector [D] of `ensemble_space(space, members, guidance)`.

    A preset of a coarser granularity starts a finer search too, and one of a model with other
    numbers of blocks a search on this one. Under guidance a preset of one member starts both, so
    that the search begins at that preset with plain CFG. Raises EnsembleSpaceError with the mend
    for a preset that the members asked for cannot express, and PresetError for one of another
    family.
    """
    _check(preset, members, guidance)
    rows = _coefficients(preset, space)  # [M', N]
    weights = np.array([member.weight for member in preset.members])
    if guidance is not None and preset.guidance is None:
        rows = np.repeat(rows, 2, axis=0)
        weights = weights[0] * np.array([guidance.scale, 1 - guidance.scale])
    elif missing := members - len(rows):
        heaviest = int(np.abs(weights).argmax())
        rows = np.concatenate([rows, np.repeat(rows[heaviest, None], missing, axis=0)])
        weights[heaviest] /= missing + 1
        weights = np.concatenate([weights, np.full(missing, weights[heaviest])])
    has_weights = members > 1 or guidance is not None
    start = np.concatenate([rows.ravel(), weights]) if has_weights else rows[0]
    if has_weights and np.abs(weights).max() > MAX_WEIGHT:
        raise EnsembleSpaceError(
            f"start_from would begin at a weight of {np.abs(weights).max():.4g}, beyond "
            f"{MAX_WEIGHT:g}: lower cfg, or start from another preset."
        )
    # A preset's numbers are float32, also where it comes straight from Calibrate.
    return start.astype(np.float32).astype(np.float64)


def _check(preset: Preset, members: int, guidance: Guidance | None) -> None:
    found = len(preset.members)
    if preset.guidance is not None and guidance is None:
        raise EnsembleSpaceError(
            "start_from has guided members and this run has none: turn guided members on, or start "
            "from another preset."
        )
    if guidance is not None and preset.guidance is None and found > 1:
        raise EnsembleSpaceError(
            f"start_from is an ensemble of {found} members and this run guides with two: turn "
            "guided members off, or start from a preset of one member."
        )
    if found > members:
        raise EnsembleSpaceError(
            f"start_from has {found} members and this run {members}: set members to {found} or "
            "more, or start from another preset."
        )
    if members == 1 and preset.is_ensemble:
        raise EnsembleSpaceError(
            f"start_from has one member with the weight {preset.members[0].weight:g}, and a run of "
            "one member searches no weight: set members to 2 or more, or start from another preset."
        )


def _coefficients(preset: Preset, space: CoefficientSpace) -> Vector:
    """The members' vectors [M', N] in `space`, from a granularity that it can express."""
    if is_sibling(preset, space):
        return carry_over(preset, space).rows
    found, vectors = check_preset(preset, space.backbone)
    gains = found.expand(vectors)
    first_tap = [space.tap_index.index(i) for i in range(len(space.names))]
    rows = gains[:, first_tap]
    if not np.array_equal(space.expand(rows), gains):
        raise EnsembleSpaceError(
            f"start_from has coefficients of granularity {preset.granularity!r} that differ where "
            f"{space.granularity!r} has one for all: set granularity to {preset.granularity!r}."
        )
    return rows
