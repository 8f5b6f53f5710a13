"""The thumbnails of the workflows about several rewards and several members, from what they saved.

    python -m comfyui_calibri.experiments.reward_thumbnails --output .run/output

`--output` is the output folder of a ComfyUI that ran both workflows as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .workflow_thumbnails import CALIBRATED, INK, PAPER, PLAIN, SIDE, WORKFLOWS, newest_pictures

REWARDS = WORKFLOWS / "Calibri - several rewards.jpg"
MEMBERS = WORKFLOWS / "Calibri - ensemble.jpg"
BAND = 62  # pixels at the top, where the page lays a badge over the left half
CAPTION, ROW = 24, SIDE // 4


def members_thumbnail(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Four pictures of the same noise in each row, below its title."""
    thumbnail, pen = _sheet("a · v(s) + b · v(t)")
    words = ImageFont.load_default(size=18)
    height = (SIDE - BAND) // len(rows)
    for number, (title, pictures) in enumerate(rows.items()):
        top = BAND + number * height
        pen.rectangle((0, top, SIDE, top + CAPTION - 1), fill=CALIBRATED if number else PLAIN)
        pen.text((SIDE / 2, top + CAPTION / 2), title, PAPER, font=words, anchor="mm")
        side = height - CAPTION
        for column, picture in enumerate(pictures[: SIDE // ROW]):
            shown = picture.resize((side - 2, side - 2), Image.Resampling.NEAREST)
            thumbnail.paste(shown, (column * ROW + 1, top + CAPTION + 1))
    return thumbnail


def rewards_thumbnail(report: dict[str, Any], grid: Image.Image) -> Image.Image:
    """What each part of the reward says, plain and calibrated, above pictures of both."""
    thumbnail, pen = _sheet("1 · a + 0.5 · b")
    names, numbers = ImageFont.load_default(size=22), ImageFont.load_default(size=30)
    parts = [judge for judge in report["judges"] if judge["name"] != "diversity"]
    for line, part in enumerate(parts):
        top = BAND + 14 + 84 * line
        pen.text((20, top), part["name"], INK, font=names)
        before, after = (part[when]["mean"] for when in ("before", "after"))
        pen.text((20, top + 30), f"{before:.3g}  to  {after:.3g}", CALIBRATED, font=numbers)
    width = round(SIDE / 2 / grid.height * grid.width)
    enlarged = grid.resize((width, SIDE // 2), Image.Resampling.NEAREST)
    thumbnail.paste(enlarged.crop((0, 0, SIDE, SIDE // 2)), (0, SIDE // 2))
    return thumbnail


def _sheet(formula: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A thumbnail with a formula at its upper right."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(thumbnail)
    pen.rectangle((0, 0, SIDE, BAND), fill=INK)
    pen.text((SIDE - 16, BAND / 2), formula, PAPER, ImageFont.load_default(size=26), anchor="rm")
    return thumbnail, pen


def main() -> None:
    parser = argparse.ArgumentParser(description="The thumbnails of two example workflows.")
    parser.add_argument("--output", type=Path, required=True, help="ComfyUI's output folder")
    given = parser.parse_args()
    folder = given.output / "calibri"
    rows = {
        title: newest_pictures(folder, prefix)
        for title, prefix in (
            ("plain", "plain"),
            ("one member", "one-member"),
            ("two members", "two-members"),
        )
    }
    members_thumbnail(rows).save(MEMBERS, quality=88, optimize=True)
    run = folder / "demo-several-rewards"
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    grid = Image.open(run / "before_after.png").convert("RGB")
    rewards_thumbnail(report, grid).save(REWARDS, quality=88, optimize=True)


if __name__ == "__main__":
    main()
