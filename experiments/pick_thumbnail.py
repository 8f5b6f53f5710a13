"""The thumbnail of the workflow that scores pictures and keeps the best, from its own pictures.

    python -m comfyui_calibri.experiments.pick_thumbnail --output .run/output

`--output` is the output folder of the ComfyUI that ran the workflow last.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .workflow_thumbnails import CALIBRATED, PAPER, PLAIN, SIDE, WORKFLOWS

THUMBNAIL = WORKFLOWS / "Calibri - score and pick images.jpg"
ALL, BEST = 16, 4
CAPTION = 32  # pixels of a line of words


def draw(every: list[Image.Image], best: list[Image.Image]) -> Image.Image:
    """Two rows of eight small pictures above the four best, as large as they fit."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    small = SIDE // 8
    top = CAPTION + 2 * small
    middle = top + CAPTION
    for number, picture in enumerate(every):
        row, column = divmod(number, 8)
        _put(thumbnail, picture, column * small, CAPTION + row * small, small)
    # As large as two rows of two can be below the words.
    side = (SIDE - middle) // 2
    left = SIDE // 2 - side
    for number, picture in enumerate(best):
        row, column = divmod(number, 2)
        _put(thumbnail, picture, left + column * side, middle + row * side, side)
    pen, font = ImageDraw.Draw(thumbnail), ImageFont.load_default(size=20)
    for place, words, colour in ((0, "all sixteen", PLAIN), (top, "the best four", CALIBRATED)):
        pen.rectangle((0, place, SIDE, place + CAPTION - 1), fill=colour)
        pen.text((SIDE / 2, place + CAPTION / 2), words, PAPER, font=font, anchor="mm")
    return thumbnail


def _put(onto: Image.Image, picture: Image.Image, left: int, top: int, side: int) -> None:
    onto.paste(picture.resize((side - 2, side - 2), Image.Resampling.NEAREST), (left, top))


def _newest(folder: Path, prefix: str, count: int) -> list[Image.Image]:
    files = sorted(folder.glob(f"{prefix}_*_.png"))[-count:]
    if len(files) < count:
        raise FileNotFoundError(
            f"{folder} holds {len(files)} pictures {prefix}_*_.png and {count} are needed: run "
            "the workflow first."
        )
    return [Image.open(file).convert("RGB") for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="ComfyUI's output folder")
    folder = parser.parse_args().output / "calibri"
    thumbnail = draw(_newest(folder, "all", ALL), _newest(folder, "best", BEST))
    temporary = THUMBNAIL.with_suffix(".tmp")
    thumbnail.save(temporary, format="JPEG", quality=88, optimize=True)
    os.replace(temporary, THUMBNAIL)
    print(THUMBNAIL)


if __name__ == "__main__":
    main()
