"""Draws an analysis as a heat map: the gain of each coefficient at each scale.

Gains are over the plain model, so 0 is the middle of the colours: blue is better, red is worse, a
pair that colour-blind people tell apart. `figure_block_curves.py` draws the curves of Figure 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .analysis import Analysis
from .figure_style import FAINT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

_DPI = 100
_MANY = 24  # blocks, beyond which the page is wide
_NARROW, _WIDE = 10.0, 14.0  # inches
_WITH_NUMBERS = 16  # blocks, up to which a cell has room for its number
_VIVID = 0.85  # quantile of the gains' sizes where colours are full, so that few hide the rest
_DARK = 0.6  # of the full colour, from which numbers are written in white
_HEADER, _FOOT = 1.2, 0.75  # inches


@dataclass(frozen=True)
class Table:
    """Where each coefficient stands: blocks side by side, branches below one another."""

    blocks: tuple[tuple[str, int], ...]  # kind and number
    endings: tuple[str, ...]  # of names: "", "attention" or "attention.image"
    rows: Mapping[tuple[int, int], int]  # (block, ending) -> row of the analysis
    columns: tuple[float, ...]  # of each block, with a gap between kinds

    @property
    def width(self) -> float:
        """Inches of the page."""
        return _WIDE if len(self.blocks) > _MANY else _NARROW


def make_table(analysis: Analysis) -> Table:
    """The places of an analysis' coefficients."""
    split = [name.split(".", 2) for name in analysis.names]
    blocks = tuple(dict.fromkeys((parts[0], int(parts[1])) for parts in split))
    ends = ["".join(parts[2:]) for parts in split]
    endings = tuple(dict.fromkeys(ends))
    kinds = list(dict.fromkeys(kind for kind, _ in blocks))
    return Table(
        blocks=blocks,
        endings=endings,
        rows={
            (blocks.index((parts[0], int(parts[1]))), endings.index(end)): row
            for row, (parts, end) in enumerate(zip(split, ends, strict=True))
        },
        columns=tuple(i + 0.6 * kinds.index(kind) for i, (kind, _) in enumerate(blocks)),
    )


def draw_heat_map(analysis: Analysis, reward: str) -> Picture:
    """Each coefficient's gain at each scale as a picture [H, 1000 or 1400, 3]."""
    table, scales = make_table(analysis), len(analysis.scales)
    rows = len(table.endings) * (scales + 0.5) - 0.5
    cells = rows * (0.34 if rows <= 12 else 0.22)
    height = _HEADER + cells + _FOOT
    left, right = 1.8 / table.width, 1 - 1.2 / table.width
    with page(table.width, height) as (figure, canvas):
        numbered = len(table.blocks) <= _WITH_NUMBERS
        colours, full = _colours(), _full_colour(analysis)
        marked = ", in bold" if numbered else ", dotted"
        unit = _unit(full)
        times = f" (gain × {unit:,})" if unit > 1 else ""
        title = f"What each block does for {reward}{times}"
        write_header(figure, title, analysis, height, marked)
        axes = figure.add_axes((left, _FOOT / height, right - left, cells / height), frameon=False)
        for (block, ending), row in table.rows.items():
            for s in range(scales):
                place = table.columns[block], ending * (scales + 0.5) + scales - 1 - s
                value = float(analysis.gain[row, s]) / full
                certain = bool(analysis.better[row, s] or analysis.worse[row, s])
                _draw_cell(axes, place, colours((value + 1) / 2))
                if numbered:
                    gain = float(analysis.gain[row, s]) * unit
                    _write_number(axes, place, gain, value, certain)
                elif certain:
                    axes.plot(*place, ".", ms=2.5, color="white" if abs(value) > _DARK else INK)
        axes.set_xlim(-0.5, table.columns[-1] + 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        _name_scales(axes, table, analysis.scales)
        name_blocks(axes, table, cells)
        beside = (right + 0.2 / table.width, _FOOT / height, 0.16 / table.width, cells / height)
        _draw_bar(figure, beside, analysis, full, unit)
        return pixels(canvas)


@contextmanager
def page(width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    """A white figure of so many inches, in the reports' style, and its canvas."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        yield figure, FigureCanvasAgg(figure)


def pixels(canvas: Any) -> Picture:
    """What is drawn, [H, W, 3]."""
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_header(
    figure: Figure, title: str, analysis: Analysis, height: float, marked: str = ""
) -> None:
    """The title, and below it what was measured; `marked` says how gains beyond 0 look."""
    cells, better = analysis.gain.size, int(analysis.better.sum())
    seeds = f" × {analysis.images_per_prompt} images" if analysis.images_per_prompt > 1 else ""
    facts = (
        f"gain over the plain model ({signed(analysis.plain.mean)}) on {analysis.prompts} prompts"
        f"{seeds}, same noise; {analysis.images:,} images in all"
    )
    told = (
        f"{better} of {cells} are better and {int(analysis.worse.sum())} worse with the whole 95 % "
        f"band over prompts{marked} (by chance alone about {0.025 * cells:.2g} each)"
    )
    left = 0.18 / figure.get_figwidth()
    for inches, text, size, weight, colour in (
        (0.15, title, 16, "bold", INK),
        (0.52, facts, 10, "normal", FAINT),
        (0.74, told, 10, "normal", FAINT),
    ):
        figure.text(
            left, 1 - inches / height, text, fontsize=size, weight=weight, color=colour, va="top"
        )


def name_blocks(axes: Axes, table: Table, inches: float) -> None:
    """Blocks' numbers along the axis, and their kinds below them; `inches` is the axes' height."""
    every = max(1, len(table.blocks) // 48)
    shown = [i for i, (_, number) in enumerate(table.blocks) if number % every == 0]
    axes.set_xticks(
        [table.columns[i] for i in shown], [str(table.blocks[i][1]) for i in shown], fontsize=9
    )
    axes.tick_params(axis="x", length=0)
    for kind in dict.fromkeys(kind for kind, _ in table.blocks):
        places = [c for c, (k, _) in zip(table.columns, table.blocks, strict=True) if k == kind]
        axes.text(
            float(np.mean(places)),
            -0.3 / inches,
            f"{kind} blocks" if len(places) > 1 else kind,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=FAINT,
        )


def branch_name(ending: str) -> str:
    """The ending of a coefficient's name in words: "attention.image" is image attention."""
    return " ".join(ending.split(".")[::-1]).replace("mlp", "MLP")


def signed(value: float) -> str:
    """A reward with a true minus sign."""
    return re.sub("^-", "−", f"{value:.3g}")


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps["RdBu"]


def _full_colour(analysis: Analysis) -> float:
    """The gain, or loss, that has the full colour."""
    sizes = np.abs(analysis.gain)
    full = max(float(np.quantile(sizes, _VIVID)), float(analysis.gain.max()))
    return full or 1.0


def _unit(full: float) -> int:
    """The power of ten that two decimals of a gain need; 1 but for rewards of a small scale."""
    return 1 if full >= 0.1 else int(10 ** min(12, -math.floor(math.log10(full))))


def _draw_cell(axes: Axes, place: tuple[float, float], colour: Any) -> None:
    from matplotlib.patches import Rectangle

    corner = place[0] - 0.5, place[1] - 0.5
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", lw=0.8))


def _write_number(
    axes: Axes, place: tuple[float, float], gain: float, value: float, certain: bool
) -> None:
    text = f"{gain:+.2f}" if 0.005 <= abs(gain) < 9.995 else f"{gain:+.0f}"
    axes.text(
        *place,
        text.replace("-", "−") if abs(gain) >= 0.005 else "0",
        ha="center",
        va="center",
        fontsize=9,
        color="white" if abs(value) > _DARK else INK,
        weight="bold" if certain else "normal",
    )


def _name_scales(axes: Axes, table: Table, scales: tuple[float, ...]) -> None:
    ticks, labels = [], []
    for number, ending in enumerate(table.endings):
        first = number * (len(scales) + 0.5)
        ticks += [first + len(scales) - 1 - s for s in range(len(scales))]
        labels += [f"× {signed(scale)}" for scale in scales]
        if ending:
            axes.text(
                -0.75 / axes.get_position().width / axes.figure.get_figwidth(),  # type: ignore[union-attr]
                first + (len(scales) - 1) / 2,
                branch_name(ending).replace(" ", "\n"),
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                color=INK,
            )
    axes.set_yticks(ticks, labels, fontsize=9)
    axes.tick_params(axis="y", length=0)


def _draw_bar(
    figure: Figure,
    place: tuple[float, float, float, float],
    analysis: Analysis,
    full: float,
    unit: int,
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    below, above = bool(analysis.gain.min() < -full), bool(analysis.gain.max() > full)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    axes = figure.add_axes(place)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-full * unit, full * unit), _colours()),
        cax=axes,
        extend=extend.get((below, above), "both"),
    )
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=8)
    lowest = f", lowest {signed(float(analysis.gain.min()) * unit)}" if below else ""
    times = f" × {unit:,}" if unit > 1 else ""
    axes.set_ylabel(f"gain{times}{lowest}", fontsize=9)
