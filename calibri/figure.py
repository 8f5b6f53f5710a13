"""Draws a calibration's report: curves, coefficients, and pictures before and after.

`figure_members.py` draws what was found, `figure_style.py` has the colours.

Matplotlib is imported where it is used and never through pyplot, whose global state belongs to
whoever else draws in the process.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .figure_judges import draw_judges, judges_height
from .figure_members import draw_members, draw_weights, members_height
from .figure_style import FAINT, GRID, INK, PICK, STYLE, TRAINING, VALIDATION, true_minus
from .selection import START

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

Pictures = NDArray[np.uint8]

WIDTH = 1400  # pixels
MOST_COLUMNS = 8  # of the before/after grid
_FEWEST_CELLS = 5  # so that one or two pictures do not fill the page
_DPI = 100


def draw_report(
    report: Mapping[str, Any],
    before: Pictures | None = None,
    after: Pictures | None = None,
    prompts: Sequence[str] = (),
) -> Pictures:
    """The report of `build_report` as a picture [H, 1400, 3].

    `before` and `after` [P, H, W, 3] are the plain and the calibrated model's pictures of
    `prompts`, of which the first eight are shown.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 0 if before is None or after is None else min(len(before), MOST_COLUMNS)
    members = len(report["recommended"]["members"])
    judged = judges_height(report)
    # Inches, each row followed by the gap below it: header, judges, curves, members, grid.
    heights = [0.95, 0.1, judged or 0.01, 0.45, 3.0, 0.9, members_height(members), 0.6]
    if columns:
        heights += [0.55, 2.03 * 13 / max(columns, _FEWEST_CELLS), 0.2]
    top = 0.2
    total = top + sum(heights)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / _DPI, total), dpi=_DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        rows = figure.add_gridspec(
            len(heights),
            1,
            height_ratios=heights,
            left=0.055,
            right=0.985,
            top=1 - top / total,
            bottom=0,
            hspace=0,
        )
        _draw_header(figure.add_subplot(rows[0]), report)
        widths, wspace = ([5, 4, 2], 0.22) if members == 1 else ([5, 4, 2, 2], 0.33)
        if judged:
            draw_judges(figure.add_subplot(rows[2]), report)
        curves = rows[4].subgridspec(1, len(widths), width_ratios=widths, wspace=wspace)
        _draw_generations(figure.add_subplot(curves[0]), report)
        _draw_validations(figure.add_subplot(curves[1]), report)
        _draw_sigma(figure.add_subplot(curves[2]), report)
        if members > 1:
            draw_weights(figure.add_subplot(curves[3]), report)
        draw_members(figure, rows[6], report)
        if before is not None and after is not None and columns:
            _draw_grid(figure, rows[9], before[:columns], after[:columns], prompts)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_header(axes: Axes, report: Mapping[str, Any]) -> None:
    axes.axis("off")
    run, gain, counts = report["run"], report["gain"], report["counts"]
    before, after = report["before"]["mean"], report["after"]["mean"]
    axes.text(
        0,
        1.0,
        true_minus(f"Calibration: {run['reward']}  {before:.3f} → {after:.3f}"),
        fontsize=19,
        fontweight="bold",
        va="top",
    )
    if report["recommended"]["generation"] == 0:
        result = "Nothing better than the plain model was found, so there is no preset."
    else:
        result = (
            f"Gain {gain['mean']:+.3f}, 95 % interval {gain['low']:+.3f} … {gain['high']:+.3f}, "
            f"on new noise for {run['validation_prompts']} held-out prompts"
        )
        if report["recommended"]["generation"] == START:
            result += "; the preset that it began at was not bettered"
        if report["kept_anyway"]:
            result += "; not seen to be better than the plain model, and kept anyway"
        elif not report["gain_shown"]:
            result += ": no gain was shown"
    axes.text(0, 0.5, true_minus(result), fontsize=12, va="top")
    members = report["recommended"]["members"]
    ensemble = f"{len(members)} members of " if len(members) > 1 else ""
    facts = [
        f"{run['family']}, {run['granularity']} granularity, "
        f"{ensemble}{len(members[0]['coefficients'])} coefficients",
        f"profile {run['profile']}, seed {run['seed']}",
        f"{run['generations']} generations{_ended_early(report)}",
        f"{counts['images']:,} images in {_duration(counts['seconds'])}",
    ]
    axes.text(0, 0.16, "  ·  ".join(facts), fontsize=10, color=FAINT, va="top")


def _ended_early(report: Mapping[str, Any]) -> str:
    stopped = report.get("stopped")
    return f" of {stopped['generations']}, ended early" if stopped else ""


def _draw_generations(axes: Axes, report: Mapping[str, Any]) -> None:
    x, mean, std, best, worst = (
        np.array([row[key] for row in report["generations"]])
        for key in ("generation", "mean", "std", "best", "worst")
    )
    axes.fill_between(x, worst, best, color=TRAINING, alpha=0.10, lw=0, label="worst to best")
    axes.fill_between(
        x, mean - std, mean + std, color=TRAINING, alpha=0.25, lw=0, label="± one deviation"
    )
    axes.plot(x, mean, color=TRAINING, lw=1.8, marker="o" if len(x) < 3 else None, label="mean")
    axes.set_title("Training reward (new prompts each generation)")
    _finish_curve(axes, "reward")
    axes.legend(loc="lower right", ncols=3)


def _draw_validations(axes: Axes, report: Mapping[str, Any]) -> None:
    rows, pick = report["validations"], report["recommended"]["generation"]
    generations = np.array([row["generation"] for row in rows])
    x = np.maximum(generations, 0)  # the preset that the search began at stands at 0
    gain, low, high = (
        np.array([row["gain"][key] for row in rows]) for key in ("mean", "low", "high")
    )
    axes.axhline(0, color=INK, lw=1)
    # What the search moved through: it began at the preset, if there was one.
    on_curve = generations != 0 if START in generations else np.ones(len(rows), bool)
    axes.errorbar(
        x[on_curve],
        gain[on_curve],
        yerr=[(gain - low)[on_curve], (high - gain)[on_curve]],
        color=VALIDATION,
        marker="o",
        ms=5,
        capsize=3,
    )
    chosen = generations == pick
    axes.plot(x[chosen], gain[chosen], "o", ms=11, mfc="none", mec=PICK, mew=2, label="chosen")
    axes.set_title("Validation: gain over the plain model")
    _finish_curve(axes, "gain, 95 % interval")
    axes.legend(loc="best")


def _draw_sigma(axes: Axes, report: Mapping[str, Any]) -> None:
    rows = report["generations"]
    sigma = [row["sigma"] for row in rows]
    axes.plot([row["generation"] for row in rows], sigma, color=FAINT, lw=1.8)
    axes.set_title("Search width σ")
    axes.set_ylim(0, 1.25 * max(sigma))
    _finish_curve(axes, "", ticks=5)


def _finish_curve(axes: Axes, label: str, ticks: int = 9) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("generation")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.grid(axis="y", color=GRID)
    axes.margins(x=0.02)


def _draw_grid(
    figure: Figure,
    place: SubplotSpec,
    before: Pictures,
    after: Pictures,
    prompts: Sequence[str],
) -> None:
    cell_count = max(len(before), _FEWEST_CELLS)
    cells = place.subgridspec(2, cell_count, wspace=0.04, hspace=0.04)
    wrap = 190 // cell_count
    for row, (label, pictures) in enumerate((("plain", before), ("calibrated", after))):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(cells[row, column])
            axes.imshow(picture, interpolation="lanczos")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, fontsize=12, fontweight="bold", color=INK)
            if row == 0 and column < len(prompts):
                lines = textwrap.wrap(prompts[column], wrap, max_lines=3, placeholder=" …")
                text = "\n".join(lines)
                axes.set_title(text, fontsize=8.5, fontweight="normal", loc="center", color=FAINT)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
