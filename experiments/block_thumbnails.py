"""The thumbnails of the workflows about blocks and edited presets, from what they saved.

    python -m comfyui_calibri.experiments.block_thumbnails --output .run/output

`--output` is the output folder of a ComfyUI that ran both workflows as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .workflow_thumbnails import CALIBRATED, INK, PAPER, PLAIN, SIDE, WORKFLOWS, newest_pictures

ANALYZE = WORKFLOWS / "Calibri - analyze blocks.jpg"
EDIT = WORKFLOWS / "Calibri - edit a preset.jpg"
RULES = ("double.0-1.attention *= 0.9", "single.6-7 *= 1.05")
ROW = SIDE // 4  # pixels of a row of four pictures
# Of the pictures of an analysis, in pixels: the heat map's cells, and what losing each block costs.
CELLS, LOSSES = (120, 108, 890, 344), (20, 92, 990, 390)


def analyze_thumbnail(heat_map: Image.Image, curves: Image.Image) -> Image.Image:
    """The heat map's cells above the losses."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    for top, picture, box in ((8, heat_map, CELLS), (SIDE // 2 + 8, curves, LOSSES)):
        part = picture.convert("RGB").crop(box)
        thumbnail.paste(part.resize((SIDE, SIDE // 2 - 16), Image.Resampling.LANCZOS), (0, top))
    return thumbnail


def edit_thumbnail(plain: list[Image.Image], edited: list[Image.Image]) -> Image.Image:
    """Rules, and below them pictures of the same noise without and with the edited preset."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(thumbnail)
    pen.rectangle((0, 0, SIDE, 2 * ROW - 64), fill=INK)
    rules, words = ImageFont.load_default(size=32), ImageFont.load_default(size=20)
    for line, rule in enumerate(RULES):
        pen.text((24, 42 + 60 * line), rule, PAPER, font=rules)
    for row, pictures, title, colour in (
        (0, plain, "plain", PLAIN),
        (1, edited, "edited", CALIBRATED),
    ):
        top = 2 * ROW - 64 + row * (ROW + 32)
        pen.rectangle((0, top, SIDE, top + 31), fill=colour)
        pen.text((SIDE / 2, top + 16), title, PAPER, font=words, anchor="mm")
        for column, picture in enumerate(pictures[: SIDE // ROW]):
            shown = picture.resize((ROW - 2, ROW - 2), Image.Resampling.NEAREST)
            thumbnail.paste(shown, (column * ROW + 1, top + 33))
    return thumbnail


def main() -> None:
    parser = argparse.ArgumentParser(description="The thumbnails of two example workflows.")
    parser.add_argument("--output", type=Path, required=True, help="ComfyUI's output folder")
    parser.add_argument("--run", default="analysis", help="the analysis' folder in it")
    given = parser.parse_args()
    folder = given.output / "calibri"
    plain, edited = (newest_pictures(folder, name) for name in ("plain", "edited"))
    edit_thumbnail(plain, edited).save(EDIT, quality=88, optimize=True)
    heat_map, curves = (
        Image.open(folder / given.run / f"{name}.png") for name in ("heat_map", "curves")
    )
    analyze_thumbnail(heat_map, curves).save(ANALYZE, quality=88, optimize=True)


if __name__ == "__main__":
    main()
