"""Draws a calibration's report: curves, coefficients, and pictures before and after.

Matplotlib is imported where it is used and never through pyplot, whose global state belongs to
whoever else draws in the process.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

Pictures = NDArray[np.uint8]

WIDTH = 1400  # pixels
MOST_COLUMNS = 8  # of the before/after grid
_FEWEST_CELLS = 5  # so that one or two pictures do not fill the page
_DPI = 100
_INK, _FAINT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_TRAINING, _VALIDATION, _PICK = "#2563eb", "#059669", "#dc2626"
_STREAMS = {"image": "#2563eb", "text": "#d97706", "joint": "#0d9488", "": "#475569"}
_BRANCH_STRENGTH = {"mlp": 0.5, "attention2": 0.75}  # opacity; other branches are solid
_STYLE: Any = {
    "font.size": 10,
    "text.parse_math": False,  # a prompt may hold dollar signs
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _FAINT,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


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
    # Inches, each row followed by the gap below it: header, curves, coefficients, grid.
    heights = [0.95, 0.45, 3.0, 0.9, 2.8, 0.6]
    if columns:
        heights += [0.55, 2.03 * 13 / max(columns, _FEWEST_CELLS), 0.2]
    top = 0.2
    total = top + sum(heights)
    with rc_context(_STYLE):
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
        curves = rows[2].subgridspec(1, 3, width_ratios=[5, 4, 2], wspace=0.22)
        _draw_generations(figure.add_subplot(curves[0]), report)
        _draw_validations(figure.add_subplot(curves[1]), report)
        _draw_sigma(figure.add_subplot(curves[2]), report)
        _draw_coefficients(figure.add_subplot(rows[4]), report["recommended"]["coefficients"])
        if before is not None and after is not None and columns:
            _draw_grid(figure, rows[7], before[:columns], after[:columns], prompts)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_header(axes: Axes, report: Mapping[str, Any]) -> None:
    axes.axis("off")
    run, gain, counts = report["run"], report["gain"], report["counts"]
    before, after = report["before"]["mean"], report["after"]["mean"]
    axes.text(
        0,
        1.0,
        _minus(f"Calibration: {run['reward']}  {before:.3f} → {after:.3f}"),
        fontsize=19,
        fontweight="bold",
        va="top",
    )
    if report["recommended"]["generation"] == 0:
        result = "Nothing better than the plain model was found; the identity is recommended."
    else:
        result = (
            f"Gain {gain['mean']:+.3f}, 95 % interval {gain['low']:+.3f} … {gain['high']:+.3f}, "
            f"on new noise for {run['validation_prompts']} held-out prompts"
        )
    axes.text(0, 0.5, _minus(result), fontsize=12, va="top")
    facts = [
        f"{run['family']}, {run['granularity']} granularity, "
        f"{len(report['recommended']['coefficients'])} coefficients",
        f"profile {run['profile']}, seed {run['seed']}",
        f"{run['generations']} generations",
        f"{counts['images']:,} images in {_duration(counts['seconds'])}",
    ]
    axes.text(0, 0.16, "  ·  ".join(facts), fontsize=10, color=_FAINT, va="top")


def _draw_generations(axes: Axes, report: Mapping[str, Any]) -> None:
    x, mean, std, best, worst = (
        np.array([row[key] for row in report["generations"]])
        for key in ("generation", "mean", "std", "best", "worst")
    )
    axes.fill_between(x, worst, best, color=_TRAINING, alpha=0.10, lw=0, label="worst to best")
    axes.fill_between(
        x, mean - std, mean + std, color=_TRAINING, alpha=0.25, lw=0, label="± one deviation"
    )
    axes.plot(x, mean, color=_TRAINING, lw=1.8, marker="o" if len(x) < 3 else None, label="mean")
    axes.set_title("Training reward (new prompts each generation)")
    _finish_curve(axes, "reward")
    axes.legend(loc="lower right", ncols=3)


def _draw_validations(axes: Axes, report: Mapping[str, Any]) -> None:
    rows, pick = report["validations"], report["recommended"]["generation"]
    x = np.array([row["generation"] for row in rows])
    gain, low, high = (
        np.array([row["gain"][key] for row in rows]) for key in ("mean", "low", "high")
    )
    axes.axhline(0, color=_INK, lw=1)
    axes.errorbar(
        x, gain, yerr=[gain - low, high - gain], color=_VALIDATION, marker="o", ms=5, capsize=3
    )
    chosen = x == pick
    axes.plot(x[chosen], gain[chosen], "o", ms=11, mfc="none", mec=_PICK, mew=2, label="chosen")
    axes.set_title("Validation: gain over the plain model")
    _finish_curve(axes, "gain, 95 % interval")
    axes.legend(loc="best")


def _draw_sigma(axes: Axes, report: Mapping[str, Any]) -> None:
    rows = report["generations"]
    sigma = [row["sigma"] for row in rows]
    axes.plot([row["generation"] for row in rows], sigma, color=_FAINT, lw=1.8)
    axes.set_title("Search width σ")
    axes.set_ylim(0, 1.25 * max(sigma))
    _finish_curve(axes, "", ticks=5)


def _finish_curve(axes: Axes, label: str, ticks: int = 9) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("generation")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.grid(axis="y", color=_GRID)
    axes.margins(x=0.02)


def _draw_coefficients(axes: Axes, coefficients: Mapping[str, float]) -> None:
    """One slot per block, its bars side by side, each rising or hanging from 1."""
    slots: dict[tuple[str, int], list[str]] = {}
    for name in coefficients:
        kind, number = name.split(".")[:2]
        slots.setdefault((kind, int(number)), []).append(name)
    position, ticks, kinds = 0.0, [], dict[str, list[float]]()
    for (kind, index), members in slots.items():
        if kinds and kind not in kinds:
            position += 1.0
        kinds.setdefault(kind, []).append(position)
        ticks.append((position, index))
        width = 0.84 / len(members)
        for place, name in enumerate(members):
            colour, opacity, label = _bar_look(name)
            value = coefficients[name]
            left = position - 0.42 + place * width
            axes.bar(
                left, value - 1, width, 1, align="edge", color=colour, alpha=opacity, label=label
            )
        position += 1.0
    axes.axhline(1, color=_INK, lw=1)
    low, high = min(0.9, *coefficients.values()), max(1.1, *coefficients.values())
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.set_xlim(-0.8, position - 0.2)
    every = max(1, len(slots) // 48)
    shown = [tick for tick in ticks if tick[1] % every == 0]
    axes.set_xticks([tick[0] for tick in shown], [str(tick[1]) for tick in shown], fontsize=8)
    for kind, places in kinds.items():
        axes.text(
            float(np.mean(places)),
            -0.13,
            f"{kind} blocks",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=_FAINT,
        )
    axes.grid(axis="y", color=_GRID)
    axes.set_ylabel("coefficient")
    axes.set_title("Recommended coefficients (1 is the plain model)")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if any(unique):
        axes.legend(
            unique.values(), unique, loc="lower right", bbox_to_anchor=(1, 1.0), ncols=len(unique)
        )


def _bar_look(name: str) -> tuple[str, float, str]:
    """Colour, opacity and legend entry of a coefficient, "double.3.attention.image" for one."""
    _, _, *parts = name.split(".")
    branch = parts[0] if parts else ""
    stream = parts[1] if len(parts) > 1 else ""
    colour = _STREAMS.get(stream, _STREAMS[""])
    return colour, _BRANCH_STRENGTH.get(branch, 1.0), " ".join(parts[::-1]).replace("mlp", "MLP")


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
                axes.set_ylabel(label, fontsize=12, fontweight="bold", color=_INK)
            if row == 0 and column < len(prompts):
                lines = textwrap.wrap(prompts[column], wrap, max_lines=3, placeholder=" …")
                text = "\n".join(lines)
                axes.set_title(text, fontsize=8.5, fontweight="normal", loc="center", color=_FAINT)


def _minus(text: str) -> str:
    """The text with true minus signs before its numbers, as Matplotlib's axes have."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
