"""A figure of AHPA as pixels, in the style of the pack's reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibri.figure_style import STYLE

_DPI = 100


def drawn(paint: Callable[[Any], None], size: tuple[int, int]) -> NDArray[np.uint8]:
    """What `paint` draws on a Matplotlib figure of this width and height in pixels, [H, W, 3]."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = size
    with rc_context(STYLE):
        figure = Figure(
            figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white", layout="constrained"
        )
        canvas: Any = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()
        picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return picture
