"""Draws how far a search has come: its generations' rewards, in a small picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figure_style import FAINT, GRID, STYLE, TRAINING, VALIDATION

SIZE = (768, 384)  # pixels
_DPI = 100


def draw_course(
    generations: Sequence[Mapping[str, Any]], budget: int, reward: str
) -> NDArray[np.uint8]:
    """The curves of `generations` as a picture [384, 768, 3].

    Each has generation, mean and best (None for generation 0) and validation or None.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.14, 0.86, 0.74))
        axes.set_title(f"{reward}, so far")
        axes.grid(color=GRID)
        axes.set_xlim(0, max(1, budget))
        axes.set_xlabel("generation")
        searched = [row for row in generations if row["mean"] is not None]
        numbers = [row["generation"] for row in searched]
        axes.plot(numbers, [row["best"] for row in searched], color=FAINT, lw=1, label="best")
        axes.plot(numbers, [row["mean"] for row in searched], color=TRAINING, label="mean")
        held_out = [row for row in generations if row["validation"] is not None]
        axes.plot(
            [row["generation"] for row in held_out],
            [row["validation"] for row in held_out],
            color=VALIDATION,
            marker="o",
            ms=4,
            label="held-out prompts",
        )
        if generations:
            axes.legend(loc="lower right")
        else:
            axes.text(0.5, 0.5, "no result yet", ha="center", color=FAINT, transform=axes.transAxes)
        canvas.draw()
        picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return picture
