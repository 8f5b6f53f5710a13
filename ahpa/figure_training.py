"""Draws a training: its losses over the steps. Its router is drawn by `figure_inspection.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibri.figure_style import GRID, TRAINING, VALIDATION
from .figure_canvas import drawn

SIZE = (900, 420)  # pixels


def draw_losses(values: Mapping[str, Sequence[float | None]], method: str) -> NDArray[np.uint8]:
    """Flow matching's loss and the alignment's, [420, 900, 3]: each step faint, their mean bold."""
    shown = [
        (name, words, colour)
        for name, words, colour in (
            ("flow", "flow matching loss", TRAINING),
            ("alignment", "alignment: 1 − cosine, mean of the levels", VALIDATION),
        )
        if name in values
    ]

    def paint(figure: Any) -> None:
        for place, (name, words, colour) in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            known = [(i + 1, v) for i, v in enumerate(values[name]) if v is not None]
            steps = [step for step, _ in known]
            series = np.array([value for _, value in known])
            axes.plot(steps, series, color=colour, alpha=0.25, lw=0.8)
            axes.plot(steps, _smooth(series), color=colour)
            axes.set_title(f"{words} ({method})" if place == 0 else words)
            axes.set_xlabel("step")
            axes.grid(color=GRID)

    return drawn(paint, SIZE)


def _smooth(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the last twentieth of the run, at each step."""
    width = max(1, len(series) // 20)
    return np.array([series[max(0, i + 1 - width) : i + 1].mean() for i in range(len(series))])
