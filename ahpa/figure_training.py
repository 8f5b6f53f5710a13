"""Draws a training: its losses over the steps, and what its router weighs at each noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..calibri.figure_style import FAINT, GRID, STYLE, TRAINING, VALIDATION, VARIANTS
from .levels import DEEP, MIDDLE, SHALLOW
from .router import entropy
from .router_file import TrainedRouter

SIZE = (900, 420)  # pixels
_DPI = 100
_TIMES = 101
_GROUP_COLOURS = {SHALLOW: VARIANTS[0][0], MIDDLE: VARIANTS[1][0], DEEP: VARIANTS[2][0]}


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

    return _drawn(paint)


def draw_router(trained: TrainedRouter | None) -> NDArray[np.uint8]:
    """β, α and the entropy of the weights against t, as the paper's Figure 5: [420, 900, 3].

    None draws that there is no router.
    """

    def paint(figure: Any) -> None:
        if trained is None:
            axes = figure.add_subplot()
            axes.axis("off")
            axes.text(0.5, 0.5, "This method trains no router.", ha="center", color=FAINT)
        else:
            _paint_router(figure, trained)

    return _drawn(paint)


def _paint_router(figure: Any, trained: TrainedRouter) -> None:
    times = torch.linspace(0, 1, _TIMES)
    with torch.no_grad():
        # A router that looks at content is shown at none.
        weights = trained.router(times, torch.zeros(_TIMES, 1, trained.hidden)).float()
    left, middle, right = (figure.add_subplot(1, 3, place) for place in (1, 2, 3))
    for group in dict.fromkeys(level.group for level in trained.levels):
        chosen = [i for i, level in enumerate(trained.levels) if level.group == group]
        colour = _GROUP_COLOURS[group]
        beta = weights[:, chosen].sum(dim=-1)
        left.plot(times, beta, color=colour, label=group)
        for order, place in enumerate(chosen):
            share = weights[:, place] / beta.clamp_min(1e-12)
            fade = 1 - 0.6 * order / max(1, len(chosen) - 1)
            name = trained.levels[place].module
            middle.plot(times, share, color=colour, alpha=fade, lw=1.3, label=name)
    right.plot(times, entropy(weights), color=TRAINING)
    titles = ("β: groups", "α: levels in their group", "entropy of the weights (nats)")
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("t (1 is noise)")
        axes.grid(color=GRID)
        axes.set_ylim(bottom=0)
    left.set_ylim(0, 1)
    middle.set_ylim(0, 1)
    left.legend(loc="best")
    middle.legend(loc="best", fontsize=6)


def _smooth(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the last twentieth of the run, at each step."""
    width = max(1, len(series) // 20)
    return np.array([series[max(0, i + 1 - width) : i + 1].mean() for i in range(len(series))])


def _drawn(paint: Callable[[Any], None]) -> NDArray[np.uint8]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = SIZE
    with rc_context(STYLE):
        figure = Figure(
            figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white", layout="constrained"
        )
        canvas: Any = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()
        picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return picture
