"""A training's report as one picture: its losses, and what the stopping prompts said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibri.figure_style import FAINT, GRID, PICK, STREAMS, STYLE, TRAINING, VALIDATION
from .training import Trained

_COLOURS = {
    "flow": STREAMS["text"],
    "late": TRAINING,
    "last": STREAMS["joint"],
    "difficulty": PICK,
    "size": FAINT,
    "reward": TRAINING,
}
_SMOOTHED = 15  # steps


def draw_training(trained: Trained, reward: str) -> NDArray[np.uint8]:
    """The picture [H, W, 3]."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        losses, stopping = figure.subplots(1, 2)
        history = trained.history
        for name, values in history.values.items():
            steps, known = _known(values)
            colour = _COLOURS.get(name, FAINT)
            losses.plot(steps, known, color=colour, alpha=0.18, linewidth=0.8)
            losses.plot(steps, _smooth(known), color=colour, label=name)
        losses.set(title="losses, unweighted", xlabel="step")
        if history.values:
            losses.legend()
        at, rewards = zip(*history.stopping, strict=True)
        stopping.plot(at, rewards, "o-", color=VALIDATION, markersize=4)
        stopping.axhline(trained.plain_reward, color=FAINT, linestyle=":", label="plain model")
        stopping.plot([trained.best_step], [trained.best_reward], "o", color=PICK, label="kept")
        stopping.set(title=f"{reward} on the stopping prompts", xlabel="step")
        stopping.legend()
        for axes in (losses, stopping):
            axes.grid(color=GRID)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _known(values: list[float | None]) -> tuple[list[int], NDArray[np.float64]]:
    pairs = [(step, value) for step, value in enumerate(values, start=1) if value is not None]
    return [step for step, _ in pairs], np.array([value for _, value in pairs], dtype=np.float64)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the last `_SMOOTHED` values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - _SMOOTHED)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
