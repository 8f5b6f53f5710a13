"""An inspection as one picture: heat maps of the change, and expected against reached quality."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibri.evaluation import Floats
from ..calibri.figure_style import FAINT, GRID, STYLE, VALIDATION
from .inspection import Inspection, rank_correlation

_COLUMNS = 4


def draw_inspection(
    found: Inspection, reached: Floats | None = None, reward: str = ""
) -> NDArray[np.uint8]:
    """The picture [H, W, 3]; `reached` [P] are rewards of the prompts' pictures."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(found.size)
    count = len(names) + (reached is not None)
    rows = math.ceil(count / _COLUMNS)
    tallest = max(len(blocks) for blocks in found.blocks.values())
    height = min(2.0 + 0.16 * tallest, 9.0)
    most = max(float(values.max()) for values in found.size.values()) or 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, height * rows + 0.8), dpi=90, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        figure.suptitle(
            "Root mean square of the change, by block and noise level. Between prompts: "
            f"{found.overall:.1%} of its mean square"
        )
        axes = list(np.atleast_1d(figure.subplots(rows, min(count, _COLUMNS))).flat)
        shown: Any = None
        for axis, name in zip(axes, names, strict=False):
            shown = axis.imshow(found.size[name], aspect="auto", cmap="viridis", vmin=0, vmax=most)
            axis.set_title(f"{name}\nprompts: {found.between[name]:.1%}", fontsize=9)
            blocks = found.blocks[name]
            every = max(1, len(blocks) // 12)
            places = range(0, len(blocks), every)
            axis.set_yticks(list(places), [blocks[at] for at in places], fontsize=7)
            at = range(0, len(found.levels), max(1, len(found.levels) // 4))
            axis.set_xticks(list(at), [f"{found.levels[i]:.2f}" for i in at], fontsize=7)
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        if shown is not None:
            figure.colorbar(shown, ax=axes, fraction=0.02)
        if reached is not None:
            _scatter(axes[len(names)], found.expected, reached, reward)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scatter(axes: Any, expected: Floats, reached: Floats, reward: str) -> None:
    correlation = rank_correlation(expected, reached)
    said = "no spread" if correlation is None else f"Spearman {correlation:.2f}"
    axes.set_visible(True)
    axes.scatter(expected, reached, s=12, color=VALIDATION)
    axes.set(xlabel="expected (deviations)", ylabel=reward or "reached")
    axes.set_title(f"expected and reached quality\n{said}", fontsize=9)
    axes.grid(color=GRID)
    axes.tick_params(colors=FAINT, labelsize=7)
