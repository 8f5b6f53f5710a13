"""Draws what judged a run's choice: each reward and diversity, plain and calibrated, in a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .figure_style import FAINT, FALL, GRID, INK, true_minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 0.26  # inches
_CHARACTERS = 140  # of an objection's line
_NAME = 40  # characters of a reward's name
_COLUMNS = (0.0, 0.30, 0.40, 0.50, 0.72)  # of the table's width


def judges_height(report: Mapping[str, Any]) -> float:
    """Inches that `draw_judges` takes; 0 where nobody judged and nothing is objected."""
    lines = len(report["judges"]) + len(_objections(report))
    return _LINE * (2 + lines) if lines else 0.0


def draw_judges(axes: Axes, report: Mapping[str, Any]) -> None:
    """A row for the searched reward and for each judge, then what they object, in words."""
    axes.axis("off")
    objections = _objections(report)
    searched = {
        "name": f"{report['run']['reward']} (searched)",
        "before": report["before"],
        "after": report["after"],
        "change": report["gain"],
    }
    rows = [searched, *report["judges"]]
    axes.set_xlim(0, 1)
    axes.set_ylim(1 + len(rows) + len(objections), 0)
    headings = ("held-out prompts", "plain", "calibrated", "change, 95 % interval", "")
    for x, heading in zip(_COLUMNS, headings, strict=True):
        axes.text(x, 0.5, heading, fontsize=10, color=FAINT, va="center")
    axes.axhline(1, color=GRID, lw=1)
    for number, row in enumerate(rows, 1):
        change = row["change"]
        word, colour = _word(change)
        name = textwrap.shorten(row["name"], _NAME, placeholder=" …")
        cells = (
            name,
            f"{row['before']['mean']:.3f}",
            f"{row['after']['mean']:.3f}",
            f"{change['mean']:+.3f}  [{change['low']:+.3f}, {change['high']:+.3f}]",
            word,
        )
        for x, cell in zip(_COLUMNS, cells, strict=True):
            axes.text(
                x,
                number + 0.5,
                true_minus(cell),
                fontsize=11,
                color=colour if x == _COLUMNS[-1] else INK,
                va="center",
            )
    for number, line in enumerate(objections, 1 + len(rows)):
        axes.text(
            0,
            number + 0.5,
            true_minus(line),
            fontsize=11,
            fontweight="bold",
            color=FALL,
            va="center",
        )


def _word(change: Mapping[str, float]) -> tuple[str, str]:
    if change["high"] < 0:
        return "fell", FALL
    if change["low"] > 0:
        return "rose", INK
    return "no difference shown", FAINT


def _objections(report: Mapping[str, Any]) -> list[str]:
    return [line for text in report["objections"] for line in textwrap.wrap(text, _CHARACTERS)]
