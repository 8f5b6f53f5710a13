"""What a comparison leaves in its folder: a page, its numbers as JSON, and two pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic_file import save_atomically
from .comparison_course import Cells
from .comparison_html import comparison_page
from .comparison_words import setting_label
from .figure_comparison import draw_comparison, without_words
from .figure_grid import draw_grid

NUMBERS = "evaluation.json"
PAGE = "evaluation.html"
FIGURE = "evaluation.png"
GRID = "grid.png"


@dataclass(frozen=True)
class ComparisonFiles:
    """Where the files are, and the two pictures [H, 1400, 3]."""

    numbers: Path
    page: Path
    figure: Path
    grid: Path
    figure_picture: NDArray[np.uint8]
    grid_picture: NDArray[np.uint8]


def save_comparison(folder: Path, report: Mapping[str, Any], cells: Cells) -> ComparisonFiles:
    """Draw and write the report of `build_comparison`, which shows pictures of one cell at least.

    Files of these names in `folder` are replaced, each wholly or not at all. Raises OSError with
    the mend where that fails.
    """
    figure = draw_comparison(report)
    rows, labels = [], []
    for variant, setting in report["shown"]:
        pictures = cells[variant, setting].pictures
        assert pictures is not None
        rows.append(pictures)
        where = setting_label(report, report["settings"][setting])
        labels.append(f"{report['variants'][variant]}\n{where}")
    grid = draw_grid(rows, labels, report["prompts"])
    text = json.dumps(report, ensure_ascii=False, allow_nan=False)
    figure_png, grid_png = _png(figure), _png(grid)
    page = comparison_page(report, _png(without_words(figure, report)), grid_png)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (
        (FIGURE, figure_png),
        (GRID, grid_png),
        (PAGE, page.encode()),
        (NUMBERS, text.encode()),  # last: with it the evaluation is whole
    ):
        save_atomically(folder / name, data, "evaluation's file")
    return ComparisonFiles(
        numbers=folder / NUMBERS,
        page=folder / PAGE,
        figure=folder / FIGURE,
        grid=folder / GRID,
        figure_picture=figure,
        grid_picture=grid,
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.fromarray(picture).save(data, format="png")
    return data.getvalue()
