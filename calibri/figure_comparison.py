"""Draws a comparison: rewards and diversity over steps with bands, and the paired gains below.

`figure_grid.py` draws its pictures. Matplotlib is imported where it is used and never through
pyplot, as in `figure.py`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .comparison_words import cautions, cells_of, sentences, setting_label
from .figure_style import GRID, INK, STYLE, VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

WIDTH = 1400  # pixels
MOST_COLUMNS = 4  # panels beside one another
MOST_WORDS = 12  # lines of findings
MOST_LINES = 3  # groups of settings in the picture; all are in the tables
DIVERSITY = "diversity"
_DPI = 100
_PANEL, _GAP, _LEGEND = 2.5, 0.75, 0.4  # inches
_BESIDE = 0.15  # between variants at the only setting, of half the width
_LABEL = 36  # characters of a preset's name


def draw_comparison(report: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The report of `build_comparison` as a picture [H, 1400, 3]."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axis, lines = _lines(report)
    measures = [*report["rewards"], *([DIVERSITY] if report["images_per_prompt"] > 1 else [])]
    bands = [measures[i : i + MOST_COLUMNS] for i in range(0, len(measures), MOST_COLUMNS)]
    words = _words(report)
    lines = lines[:MOST_LINES]
    panels = len(lines) * len(bands) * 2
    header = _header(report)
    total = header + panels * (_PANEL + _GAP) + 0.1
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / _DPI, total), dpi=_DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        figure.text(0.03, 1 - 0.18 / total, _title(report), va="top", fontsize=17, weight="bold")
        figure.text(0.03, 1 - 0.62 / total, "\n".join(words), va="top", linespacing=1.4)
        figure.legend(
            handles=_handles(report),
            loc="center left",
            bbox_to_anchor=(0.02, 1 - (header - _LEGEND / 2) / total),
            ncols=len(report["variants"]),
            fontsize=10.5,
            labelcolor=INK,
        )
        top = header
        for numbers in lines:
            for band in bands:
                for row in ("mean", "paired"):
                    for column, measure in enumerate(band):
                        width = 0.98 / max(len(band), 2)
                        place = (
                            0.06 + column * width,
                            1 - (top + _GAP / 2 + _PANEL) / total,
                            width - 0.065,
                            _PANEL / total,
                        )
                        axes = figure.add_axes(place)
                        _draw_panel(axes, report, axis, numbers, measure, paired=row == "paired")
                    top += _PANEL + _GAP
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def without_words(picture: NDArray[np.uint8], report: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The drawn report from its legend down, for where its words are said in another way."""
    return picture[round((_header(report) - _LEGEND) * _DPI) :]


def _header(report: Mapping[str, Any]) -> float:
    """Inches of title, findings and legend."""
    return 0.75 + 0.2 * len(_words(report)) + _LEGEND


def _title(report: Mapping[str, Any]) -> str:
    presets = len(report["variants"]) - 1
    model = str(report["about"].get("model", ""))
    return f"Evaluation{': ' + model[:60] if model else ''}, plain and " + (
        "a preset" if presets == 1 else f"{presets} presets"
    )


def _words(report: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    said, last = [list(map(_wrapped, text)) for text in (sentences(report), cautions(report))]
    said = said[: len(said) - len(last)]
    room = MOST_WORDS - sum(map(len, last))
    for number, wrapped in enumerate(said):
        if len(lines) + len(wrapped) > room:
            lines.append(f"· {len(said) - number} more in evaluation.html.")
            break
        lines += wrapped
    lines += chain(*last)
    if (groups := len(_lines(report)[1])) > MOST_LINES:
        lines.append(
            f"· The curves are those of the first {MOST_LINES} of {groups} combinations of cfg, "
            "sampler and size; evaluation.html has all numbers."
        )
    # True minus signs, as Matplotlib's axes have.
    return [re.sub(r"(?<=[ \[(])-(?=\d)", "−", line) for line in lines]


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 180, initial_indent="· ", subsequent_indent="   ")


def _handles(report: Mapping[str, Any]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker=marker, lw=1.8, label=_short(name))
        for name, (colour, marker) in zip(report["variants"], cycle(VARIANTS), strict=False)
    ]


def _lines(report: Mapping[str, Any]) -> tuple[str, list[list[int]]]:
    """The x axis and, for each row of panels, its settings: over steps, or over cfg where each
    group has one step count only."""
    groups: list[list[int]] = report["groups"]
    if max(map(len, groups)) > 1 or len({s["cfg"] for s in report["settings"]}) == 1:
        return "steps", groups
    alike: dict[tuple[Any, ...], list[int]] = {}
    for (number,) in groups:
        setting = report["settings"][number]
        key = tuple(value for name, value in setting.items() if name != "cfg")
        alike.setdefault(key, []).append(number)
    return "cfg", list(alike.values())


def _draw_panel(
    axes: Axes,
    report: Mapping[str, Any],
    axis: str,
    numbers: Sequence[int],
    measure: str,
    paired: bool,
) -> None:
    """One measure over the settings `numbers`: its mean, or the preset's change against plain."""
    ticks = np.array([float(report["settings"][number][axis]) for number in numbers])
    alone = len(ticks) == 1
    for variant in range(1 if paired else 0, len(report["variants"])):
        x = ticks + (_BESIDE * variant if alone else 0)
        cells = cells_of(report, variant)
        found = [_interval(cells[number], measure, paired) for number in numbers]
        colour, marker = VARIANTS[variant % len(VARIANTS)]
        known = [i for i, interval in enumerate(found) if interval is not None]
        mean, low, high = (
            np.array([interval[key] for interval in found if interval is not None])
            for key in ("mean", "low", "high")
        )
        axes.fill_between(x[known], low, high, color=colour, alpha=0.16, lw=0)
        axes.plot(
            x[known],
            mean,
            color=colour,
            marker=marker,
            ms=5.5,
            lw=1.8,
            zorder=3 if variant else 2.5,
        )
        if alone and known:  # a band of one point cannot be seen
            axes.errorbar(x, mean, yerr=[mean - low, high - mean], color=colour, capsize=4)
    ratio = measure == DIVERSITY
    if paired:
        axes.axhline(1 if ratio else 0, color=VARIANTS[0][0], lw=1.2, ls="--", zorder=2)
        unit = "ratio to plain, paired" if ratio else "gain over plain, paired"
    else:
        unit = "distance of seeds, 0–1" if ratio else "mean score"
    where = setting_label(report, report["settings"][numbers[0]], steps=False)
    title = _short(measure) + (f" ({where})" if where and axis == "steps" else "")
    axes.margins(x=0.04)
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_xlabel("steps" if axis == "steps" else "cfg")
    if alone:
        middle = ticks[0] + _BESIDE * (len(report["variants"]) - 1) / 2
        axes.set_xlim(middle - 1, middle + 1)
        ticks, names = np.array([middle]), [f"{ticks[0]:g}"]
    else:
        names = [f"{value:g}" for value in ticks]
    if axis == "steps" and not alone:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(ticks, names)
    axes.grid(color=GRID)


def _interval(cell: Mapping[str, Any], measure: str, paired: bool) -> Mapping[str, float] | None:
    of: Mapping[str, Any] | None = (
        cell["diversity"] if measure == DIVERSITY else cell["rewards"][measure]
    )
    if of is None or not paired:
        return of
    change: Mapping[str, float] | None = of["ratio" if measure == DIVERSITY else "gain"]
    return change


def _short(name: str) -> str:
    """A name of at most `_LABEL` characters: names of presets differ at either end."""
    name = " ".join(name.split())
    half = _LABEL // 2
    return name if len(name) <= _LABEL else f"{name[:half]}…{name[half + 1 - _LABEL :]}"
