"""The part of a report's picture that shows what was found: members, coefficients and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure_style import BRANCH_STRENGTH, FAINT, GRID, INK, STREAMS, TRAINING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

# Inches: the bars of a member that is alone, of one among others, and the gap between two.
_ALONE, _AMONG, _GAP = 2.8, 1.9, 0.95


def members_height(members: int) -> float:
    """Inches that the rows of this many members take."""
    return _ALONE if members == 1 else members * (_AMONG + _GAP) - _GAP


def draw_members(figure: Figure, place: SubplotSpec, report: Mapping[str, Any]) -> None:
    """The coefficients of each member, below one another and on one scale."""
    members = report["recommended"]["members"]
    guided = bool(report["run"].get("guided_members"))
    rows = place.subgridspec(len(members), 1, hspace=_GAP / _AMONG)
    values = [value for member in members for value in member["coefficients"].values()]
    limits = min(0.9, *values), max(1.1, *values)
    height = _ALONE if len(members) == 1 else _AMONG
    for number, member in enumerate(members):
        axes = figure.add_subplot(rows[number])
        _draw_coefficients(axes, member["coefficients"], limits, height, legend=number == 0)
        axes.set_title(_title(number, len(members), member["weight"], guided))


def draw_weights(axes: Axes, report: Mapping[str, Any]) -> None:
    """Each member's weight beside the plain model's."""
    weights = [member["weight"] for member in report["recommended"]["members"]]
    numbers = range(1, len(weights) + 1)
    axes.bar(numbers, weights, 0.6, color=TRAINING, label="found")
    plain = report["plain_weights"]
    axes.plot(numbers, plain, "_", ms=22, mew=1.5, color=INK, label="plain model")
    axes.axhline(0, color=INK, lw=1)
    axes.margins(y=0.25)
    axes.set_title("Members' weights")
    axes.set_xlabel("member")
    axes.set_xticks(list(numbers))
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="best", fontsize=8)


def _title(number: int, members: int, weight: float, guided: bool) -> str:
    if members == 1:
        return "Recommended coefficients (1 is the plain model)"
    role = f" ({('prompt', 'negative prompt')[number]})" if guided else ""
    signed = f"{weight:.3f}".replace("-", "−")
    return f"Member {number + 1}{role}, weight {signed}"


def _draw_coefficients(
    axes: Axes,
    coefficients: Mapping[str, float],
    limits: tuple[float, float],
    height: float,
    legend: bool,
) -> None:
    """One slot per block, its bars side by side, each rising or hanging from 1; inches high."""
    slots: dict[tuple[str, int], list[str]] = {}
    for name in coefficients:
        kind, number = name.split(".")[:2]
        slots.setdefault((kind, int(number)), []).append(name)
    position, ticks, kinds = 0.0, [], dict[str, list[float]]()
    for (kind, index), names in slots.items():
        if kinds and kind not in kinds:
            position += 1.0
        kinds.setdefault(kind, []).append(position)
        ticks.append((position, index))
        width = 0.84 / len(names)
        for place, name in enumerate(names):
            colour, opacity, label = _bar_look(name)
            value = coefficients[name]
            left = position - 0.42 + place * width
            axes.bar(
                left, value - 1, width, 1, align="edge", color=colour, alpha=opacity, label=label
            )
        position += 1.0
    axes.axhline(1, color=INK, lw=1)
    low, high = limits
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.set_xlim(-0.8, position - 0.2)
    every = max(1, len(slots) // 48)
    shown = [tick for tick in ticks if tick[1] % every == 0]
    axes.set_xticks([tick[0] for tick in shown], [str(tick[1]) for tick in shown], fontsize=8)
    for kind, places in kinds.items():
        axes.text(
            float(np.mean(places)),
            -0.36 / height,
            f"{kind} blocks",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=FAINT,
        )
    axes.grid(axis="y", color=GRID)
    axes.set_ylabel("coefficient")
    if legend:
        _draw_legend(axes)


def _draw_legend(axes: Axes) -> None:
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
    colour = STREAMS.get(stream, STREAMS[""])
    return colour, BRANCH_STRENGTH.get(branch, 1.0), " ".join(parts[::-1]).replace("mlp", "MLP")
