"""The thumbnails of the workflows for models of one's own: drawings, for want of their pictures.

    python -m comfyui_calibri.experiments.model_thumbnails

Each square is a coefficient of the model, in the family's own order of blocks (docs/backbones.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .workflow_thumbnails import CALIBRATED, INK, PAPER, PLAIN, SIDE, WORKFLOWS

IMAGE, TEXT, BOTH = CALIBRATED, "#d97706", "#0f766e"
# The page lays a badge over the upper left corner.
TOP, MARGIN, GAP = 84, 20, 2
OWN = WORKFLOWS / "Calibri - calibrate your own checkpoint.jpg"


@dataclass(frozen=True)
class Row:
    """The coefficients of one branch, block by block."""

    words: str
    blocks: int
    colour: str


@dataclass(frozen=True)
class Picture:
    """A model's name, its rows of coefficients, and how many it has by block, layer and gate."""

    model: str
    rows: tuple[Row, ...]
    counts: tuple[int, int, int]


PICTURES = (
    Picture(
        "FLUX.1-dev",
        (
            Row("image attention", 19, IMAGE),
            Row("image MLP", 19, IMAGE),
            Row("text attention", 19, TEXT),
            Row("text MLP", 19, TEXT),
            Row("single blocks", 38, BOTH),
        ),
        (57, 76, 114),
    ),
    Picture(
        "SD3.5 medium",
        (
            Row("image attention", 24, IMAGE),
            Row("second attention", 13, IMAGE),
            Row("image MLP", 24, IMAGE),
            Row("text attention", 23, TEXT),
            Row("text MLP", 23, TEXT),
        ),
        (24, 61, 107),
    ),
    Picture(
        "Qwen-Image",
        (
            Row("image attention", 60, IMAGE),
            Row("image MLP", 60, IMAGE),
            Row("text attention", 59, TEXT),
            Row("text MLP", 59, TEXT),
        ),
        (60, 120, 238),
    ),
)


def draw(picture: Picture) -> Image.Image:
    """Its name, its rows of squares, and the counts below."""
    assert sum(row.blocks for row in picture.rows) == picture.counts[-1]
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(thumbnail)
    pen.text((MARGIN, TOP), picture.model, INK, font=ImageFont.load_default(size=44))
    words, top = ImageFont.load_default(size=20), TOP + 74
    longest = max(row.blocks for row in picture.rows)
    cell = (SIDE - 2 * MARGIN) / longest
    step = (SIDE - 56 - top) / len(picture.rows)
    for number, row in enumerate(picture.rows):
        y = top + number * step
        pen.text((MARGIN, y), row.words, row.colour, font=words)
        for block in range(row.blocks):
            x = MARGIN + block * cell
            box = (x, y + 28, x + max(cell - GAP, 2), y + 28 + min(cell - GAP, step - 36))
            pen.rectangle(box, fill=row.colour)
    block, layer, gate = picture.counts
    line = f"{block} · {layer} · {gate} coefficients"
    pen.text((MARGIN, SIDE - 40), line, PLAIN, font=ImageFont.load_default(size=24))
    return thumbnail


def draw_own() -> Image.Image:
    """A checkpoint, prompts and a reward go in, and a preset comes out."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(thumbnail)
    words = ImageFont.load_default(size=28)
    boxes = (("your checkpoint", IMAGE), ("your prompts", TEXT), ("a reward", BOTH))
    for number, (name, colour) in enumerate(boxes):
        top = TOP + number * 84
        pen.rounded_rectangle((MARGIN, top, 270, top + 64), 12, fill=colour)
        pen.text((145, top + 32), name, PAPER, font=words, anchor="mm")
        pen.line((270, top + 32, 350, TOP + 116), fill=PLAIN, width=4)
    pen.rounded_rectangle((350, TOP + 84, SIDE - MARGIN, TOP + 148), 12, fill=INK)
    pen.text((421, TOP + 116), "preset", PAPER, font=words, anchor="mm")
    small = ImageFont.load_default(size=24)
    for line, text in enumerate(("searched while ComfyUI is idle,", "your own prompts go first")):
        pen.text((MARGIN, SIDE - 120 + 36 * line), text, PLAIN, font=small)
    return thumbnail


def _save(thumbnail: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    thumbnail.save(temporary, format="JPEG", quality=88, optimize=True)
    os.replace(temporary, path)
    print(path)


def main() -> None:
    for picture in PICTURES:
        _save(draw(picture), WORKFLOWS / f"Calibri - {picture.model} with a preset.jpg")
    _save(draw_own(), OWN)


if __name__ == "__main__":
    main()
