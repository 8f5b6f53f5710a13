"""Draws pictures of a comparison: one row each for the plain model and the presets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figure_style import FAINT, INK, STYLE

WIDTH = 1400  # pixels
_DPI = 100
_LEFT, _TOP, _GAP = 0.75, 0.75, 0.05  # inches: row labels, prompts, between pictures
_FEWEST = 4  # columns, so that one or two pictures do not fill the page


def draw_grid(
    rows: Sequence[NDArray[np.uint8]], labels: Sequence[str], prompts: Sequence[str]
) -> NDArray[np.uint8]:
    """`rows` of pictures, each [P, H, W, 3] from the same noise, as a picture [H', 1400, 3].

    `labels` stand at the rows, cut where they are long but for their last line; `prompts` stand
    above the columns.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(rows[0])
    height, width = rows[0].shape[1:3]
    cell = (WIDTH / _DPI - _LEFT - 0.1) / max(columns, _FEWEST) - _GAP
    tall = cell * height / width
    total = _TOP + len(rows) * (tall + _GAP) + 0.1
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / _DPI, total), dpi=_DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        for row, (label, pictures) in enumerate(zip(labels, rows, strict=True)):
            bottom = total - _TOP - row * (tall + _GAP) - tall
            # A title may be long; its last line, the setting, is always there.
            name, _, setting = label.rpartition("\n")
            lines = textwrap.wrap(name, max(12, int(tall * 12)), max_lines=2, placeholder="…")
            figure.text(
                0.4 / (WIDTH / _DPI),
                (bottom + tall / 2) / total,
                "\n".join([*lines, setting]),
                rotation=90,
                ha="center",
                va="center",
                fontsize=10.5,
                fontweight="bold",
                color=INK,
            )
            for column, picture in enumerate(pictures):
                left = _LEFT + column * (cell + _GAP)
                place = (left / (WIDTH / _DPI), bottom / total, cell / (WIDTH / _DPI), tall / total)
                axes = figure.add_axes(place)
                axes.imshow(picture, interpolation="lanczos", aspect="auto")
                axes.axis("off")
                if row == 0:
                    wrapped = textwrap.wrap(
                        prompts[column], max(10, int(cell * 13)), max_lines=3, placeholder=" …"
                    )
                    axes.set_title(
                        "\n".join(wrapped),
                        fontsize=8.5,
                        fontweight="normal",
                        loc="center",
                        color=FAINT,
                    )
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
