"""Draws what a router weighs, what its levels hold, and what can be read of them in a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibri.figure_style import FAINT, GRID, INK, TRAINING, VARIANTS
from .figure_canvas import drawn
from .group_pictures import GroupPictures
from .inspection import weighing
from .levels import DEEP, MIDDLE, SHALLOW, Level
from .probe import Readout
from .router_file import TrainedRouter

ROUTER_SIZE, ALIGNMENT_SIZE = (900, 640), (900, 480)  # pixels
_CELL, _LABEL = 150, 110
_GROUP_COLOURS = {SHALLOW: VARIANTS[3][0], MIDDLE: VARIANTS[1][0], DEEP: VARIANTS[2][0]}
_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw_router(trained: TrainedRouter | None) -> NDArray[np.uint8]:
    """β, the weights' entropy and each group's α against t, as the paper's Figure 5: [640, 900, 3].

    None draws that there is no router.
    """

    def paint(figure: Any) -> None:
        if trained is None:
            axes = figure.add_subplot()
            axes.axis("off")
            axes.text(0.5, 0.5, "This method trains no router.", ha="center", color=FAINT)
        else:
            _paint_router(figure, trained)

    return drawn(paint, ROUTER_SIZE)


def draw_features(
    pictures: NDArray[np.float32], groups: Sequence[GroupPictures]
) -> NDArray[np.uint8]:
    """Pictures [P, H, W, 3] in 0…1 above their groups' colours, a row for each group: [H, W, 3]."""
    count = len(pictures)
    size = (_LABEL + _CELL * count, _CELL * (1 + len(groups)))

    def paint(figure: Any) -> None:
        axes = figure.subplots(1 + len(groups), count, squeeze=False)
        rows = [("pictures", pictures)]
        for found in groups:
            levels = "1 level" if len(found.levels) == 1 else f"{len(found.levels)} levels"
            rows.append((f"{found.group}\n{levels}\n{found.explained:.0%} shown", found.pictures))
        for row, (label, shown) in enumerate(rows):
            for column in range(count):
                axis = axes[row][column]
                axis.imshow(shown[column].clip(0, 1), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            axes[row][0].set_ylabel(
                label, rotation=0, ha="right", va="center", color=INK, labelpad=8
            )

    return drawn(paint, size)


def draw_alignment(found: Readout) -> NDArray[np.uint8]:
    """The cosine of each level's probe against t: [480, 900, 3]."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for number, look in enumerate(_looks(found.levels)):
            name = f"{found.levels[number].group} {found.levels[number].module}"
            axes.plot(found.times, found.cosines[:, number], ms=4, label=name, **look)
        axes.set_title(
            f"what a linear probe reads of each level in {found.block}'s tokens "
            f"({found.pictures} pictures)"
        )
        axes.set_ylabel("cosine, on pictures it has not seen")
        _by_time(axes)
        axes.set_ylim(bottom=min(0.0, float(found.cosines.min())))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    return drawn(paint, ALIGNMENT_SIZE)


def _paint_router(figure: Any, trained: TrainedRouter) -> None:
    found = weighing(trained)
    above, below = figure.add_gridspec(2, 1)
    left, right = above.subgridspec(1, 2).subplots()
    for group in found.groups:
        left.plot(found.times, found.beta(group), color=_GROUP_COLOURS[group], label=group)
    left.set_title("β: groups")
    left.set_ylim(0, 1)
    left.legend(loc="best")
    right.plot(found.times, found.entropy, color=TRAINING)
    right.set_title("entropy of the weights (nats)")
    most = math.log(len(found.levels))
    right.axhline(most, color=FAINT, ls="--", lw=1, label="all levels alike")
    right.set_ylim(0, 1.1 * most or 1)
    right.legend(loc="lower right")
    row = below.subgridspec(1, len(found.groups)).subplots(squeeze=False)[0]
    for axes, group in zip(row, found.groups, strict=True):
        levels = [found.levels[place] for place in found.places(group)]
        shares = found.alpha(group).T
        for level, share, look in zip(levels, shares, _looks(levels), strict=True):
            axes.plot(found.times, share, markevery=10, ms=4, label=level.module, **look)
        axes.set_title(f"α: levels of the {group} group")
        axes.set_ylim(0, 1)
        axes.legend(loc="best", fontsize=8, labelspacing=0.2)
    for axes in (left, right, *row):
        _by_time(axes)


def _by_time(axes: Any) -> None:
    axes.set_xlabel("t (1 is noise)")
    axes.set_xlim(0, 1)
    axes.grid(color=GRID)


def _looks(levels: Sequence[Level]) -> list[dict[str, Any]]:
    """How each level's line looks: in its group's colour, paler and with a marker by its order."""
    groups = [level.group for level in levels]
    looks = []
    for number, level in enumerate(levels):
        order, count = groups[:number].count(level.group), groups.count(level.group)
        looks.append(
            {
                "color": _GROUP_COLOURS[level.group],
                "alpha": 1 - 0.6 * order / max(1, count - 1),
                "marker": _MARKERS[order % len(_MARKERS)],
            }
        )
    return looks
