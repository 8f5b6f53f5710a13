"""Draws an analysis as curves: a block's gain over its scale, and what losing each block costs.

Figure 3 of the paper, with 95 % bands over prompts. `figure_analysis.py` draws the heat map.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .analysis import PLAIN, Analysis
from .figure_analysis import (
    Picture,
    Table,
    branch_name,
    make_table,
    name_blocks,
    page,
    pixels,
    signed,
    write_header,
)
from .figure_style import FAINT, GRID, INK, PICK, STREAMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

    from .skip_layers import Suggestion

_LINES = {"mlp": "--", "attention2": ":"}  # other branches are solid
_ACROSS_NARROW, _ACROSS_WIDE = 6, 8  # panels
_HEADER, _FOOT = 1.25, 0.55  # inches
_LOSSES, _GAP, _PANEL = 2.1, 1.0, 1.6


def draw_curves(analysis: Analysis, reward: str, suggestion: Suggestion | None = None) -> Picture:
    """Each block's gain over its scale, and above, where 0 is a scale, what its loss costs.

    A picture [H, 1000 or 1400, 3]. Blocks of the `suggestion` for Skip Layer Guidance are ringed.
    """
    table = make_table(analysis)
    across = _ACROSS_WIDE if table.width > 12 else _ACROSS_NARROW
    down = math.ceil(len(table.blocks) / across)
    heights = [*((_LOSSES, _GAP) if 0.0 in analysis.scales else ()), _PANEL * down]
    total = _HEADER + sum(heights) + _FOOT
    with page(table.width, total) as (figure, canvas):
        write_header(figure, f"{reward} over each block's scale", analysis, total)
        places = figure.add_gridspec(
            len(heights),
            1,
            height_ratios=heights,
            left=0.85 / table.width,
            right=1 - 0.2 / table.width,
            top=1 - _HEADER / total,
            bottom=_FOOT / total,
            hspace=0,
        )
        if len(heights) > 1:
            _draw_losses(figure.add_subplot(places[0]), analysis, table, suggestion)
        _draw_panels(figure, places[len(heights) - 1], analysis, table, across, down)
        return pixels(canvas)


def _draw_losses(
    axes: Axes, analysis: Analysis, table: Table, suggestion: Suggestion | None
) -> None:
    at = analysis.scales.index(0.0)
    for ending, name in enumerate(table.endings):
        shift = 0.5 * ((ending + 0.5) / len(table.endings) - 0.5)
        rows = [(block, row) for (block, e), row in table.rows.items() if e == ending]
        x = [table.columns[block] + shift for block, _ in rows]
        gain, low, high = (
            np.array([values[row, at] for _, row in rows])
            for values in (analysis.gain, analysis.low, analysis.high)
        )
        colour, _ = _look(name)
        filled = colour if _LINES.get(name.split(".")[0]) is None else "white"
        axes.errorbar(
            x,
            gain,
            yerr=[gain - low, high - gain],
            fmt="o",
            color=colour,
            mfc=filled,
            ms=5,
            capsize=2,
            lw=1.3,
            label=branch_name(name) or None,
        )
    axes.axhline(0, color=INK, lw=1)
    _ring_suggested(axes, analysis, table, suggestion, at)
    axes.set_xlim(-0.6, table.columns[-1] + 0.6)
    axes.margins(y=0.12)
    axes.set_title("Without it: scale 0")
    axes.set_ylabel("gain, 95 % band")
    axes.grid(axis="y", color=GRID)
    name_blocks(axes, table, _LOSSES)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=len(table.endings) + 1)


def _ring_suggested(
    axes: Axes, analysis: Analysis, table: Table, suggestion: Suggestion | None, at: int
) -> None:
    names = () if suggestion is None else suggestion.names
    rows = [row for row, name in enumerate(analysis.names) if name in names]
    if rows:
        places = {row: table.columns[block] for (block, _), row in table.rows.items()}
        axes.plot(
            [places[row] for row in rows],
            [analysis.gain[row, at] for row in rows],
            "o",
            ms=12,
            mfc="none",
            mec=PICK,
            mew=1.8,
            label="suggested for Skip Layer Guidance",
        )


def _draw_panels(
    figure: Figure, place: SubplotSpec, analysis: Analysis, table: Table, across: int, down: int
) -> None:
    cells = place.subgridspec(down, across, wspace=0.42, hspace=0.62)
    x = np.array(sorted((*analysis.scales, PLAIN)))
    plain = int(np.searchsorted(x, PLAIN))
    for number, (kind, index) in enumerate(table.blocks):
        axes = figure.add_subplot(cells[number // across, number % across])
        axes.axhline(0, color=INK, lw=0.8)
        axes.axvline(PLAIN, color=GRID, lw=1)
        for ending, name in enumerate(table.endings):
            row = table.rows.get((number, ending))
            if row is None:
                continue
            gain, low, high = (
                np.insert(values[row], plain, 0.0)
                for values in (analysis.gain, analysis.low, analysis.high)
            )
            colour, line = _look(name)
            axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
            axes.plot(x, gain, color=colour, ls=line, lw=1.5, marker="o", ms=2.5)
        axes.set_title(f"{kind} {index}", fontsize=9.5)
        axes.locator_params(axis="y", nbins=4)
        ticks = sorted({float(x[0]), PLAIN, float(x[-1])})
        axes.set_xticks(ticks, [signed(tick) for tick in ticks])
        axes.tick_params(labelsize=8, colors=FAINT)
        if number + across >= len(table.blocks):
            axes.set_xlabel("scale", fontsize=9)
        if number % across == 0:
            axes.set_ylabel("gain", fontsize=9)


def _look(ending: str) -> tuple[str, str]:
    """Colour by stream and line by branch of a curve, "attention.image" for one."""
    branch, _, stream = ending.partition(".")
    return STREAMS.get(stream, STREAMS[""]), _LINES.get(branch, "-")
