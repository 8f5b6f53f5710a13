"""The example workflows' thumbnails, made from pictures that the workflows themselves saved.

    python -m comfyui_calibri.experiments.workflow_thumbnails --output .run/output

`--output` is the output folder of the ComfyUI that ran the workflows (`scripts/demo` leaves one).
ComfyUI's template browser shows `<workflow>.jpg` from the folder of `<workflow>.json`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
GENERATE = WORKFLOWS / "Calibri - a quick start.jpg"
CALIBRATE = WORKFLOWS / "Calibri - calibrate.jpg"
BACKGROUND = WORKFLOWS / "Calibri - calibrate in the background.jpg"
EVALUATE = WORKFLOWS / "Calibri - evaluate a preset.jpg"
SIDE = 512  # pixels of a thumbnail's side
# Of an evaluation's grid.png, in pixels: where its pictures begin, one of eight with its gap.
GRID_BEGINS, GRID_CELL, GRID_GAP = 75, 164, 5
PICTURES = 8  # of each model
CAPTION = 32  # pixels of the line that says which is which
INK, PLAIN, CALIBRATED, PAPER = "#1f2937", "#6b7280", "#4f46e5", "#ffffff"
# Of the queue's drawing, in pixels: when the user's own prompts begin and end.
PROMPTS = ((54, 106), (118, 170), (262, 306), (390, 458))
GAP = 10  # pixels of an empty queue between two prompts

Pictures = list[Image.Image]


def generate_thumbnail(plain: Pictures, calibrated: Pictures) -> Image.Image:
    """Plain pictures left of calibrated ones of the same noise, eight each."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    cell = (SIDE - CAPTION) // 4
    for left, pictures, title, colour in (
        (0, plain, "plain", PLAIN),
        (SIDE - 2 * cell, calibrated, "calibrated", CALIBRATED),
    ):
        _caption(thumbnail, title, colour, left, 2 * cell)
        for number, picture in enumerate(pictures):
            row, column = divmod(number, 2)
            shown = picture.resize((cell - 2, cell - 2), Image.Resampling.NEAREST)
            thumbnail.paste(shown, (left + column * cell, CAPTION + row * cell))
    return thumbnail


def calibrate_thumbnail(report: dict[str, Any], grid: Image.Image) -> Image.Image:
    """The gain over the generations above `grid`, a run's two rows of pictures before and after."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    width = round(SIDE / 2 / grid.height * grid.width)
    enlarged = grid.resize((width, SIDE // 2), Image.Resampling.NEAREST)
    thumbnail.paste(enlarged.crop((0, 0, SIDE, SIDE // 2)), (0, SIDE // 2))
    curve = Image.fromarray(_draw_gain(report))
    thumbnail.paste(curve, (0, 0))
    return thumbnail


def background_thumbnail(report: dict[str, Any]) -> Image.Image:
    """The gain over the generations above a drawing of ComfyUI's queue that two share."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    thumbnail.paste(Image.fromarray(_draw_gain(report)), (0, 0))
    draw = ImageDraw.Draw(thumbnail)
    left, right, top, height = 16, SIDE - 16, SIDE // 2 + 56, 64
    ends = [left - GAP, *(end for _, end in PROMPTS)]
    begins = [*(begin for begin, _ in PROMPTS), right + GAP]
    for begin, end in zip(ends, begins, strict=True):
        if end - begin > 3 * GAP:
            box = (begin + GAP, top + height + GAP, end - GAP, top + 2 * height + GAP)
            draw.rectangle(box, fill=CALIBRATED)
    for begin, end in PROMPTS:
        draw.rectangle((begin, top, end, top + height), fill=PLAIN)
    font = ImageFont.load_default(size=20)
    draw.text((left, top - 12), "your prompts", PLAIN, font=font, anchor="ls")
    below = top + 2 * height + GAP + 12
    draw.text(
        (left, below), "the calibration, when you are idle", CALIBRATED, font=font, anchor="lt"
    )
    return thumbnail


def evaluate_thumbnail(report: dict[str, Any], grid: Image.Image) -> Image.Image:
    """The first reward over steps, plain and calibrated, above four pictures of both."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    thumbnail.paste(Image.fromarray(_draw_curves(report)), (0, 0))
    right, bottom = (GRID_BEGINS + count * GRID_CELL - GRID_GAP for count in (4, 2))
    pictures = grid.crop((GRID_BEGINS, GRID_BEGINS, right, bottom))
    thumbnail.paste(pictures.resize((SIDE, SIDE // 2), Image.Resampling.LANCZOS), (0, SIDE // 2))
    return thumbnail


def _draw_curves(report: dict[str, Any]) -> NDArray[np.uint8]:
    """An evaluation's first reward over steps: [SIDE / 2, SIDE, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE / 100, SIDE / 200), dpi=100, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.12, 0.17, 0.85, 0.68))
    steps = [setting["steps"] for setting in report["settings"]]
    (reward, *_) = report["rewards"]
    for variant, (name, colour) in enumerate((("plain", PLAIN), ("calibrated", CALIBRATED))):
        cells = [cell for cell in report["cells"] if cell["variant"] == variant]
        means = [cell["rewards"][reward]["mean"] for cell in cells]
        axes.plot(steps, means, color=colour, marker="o", label=name, linewidth=2)
    axes.set_title("plain and calibrated over steps", color=INK, fontsize=12, loc="left")
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    axes.set_xlabel("steps", color=PLAIN, labelpad=-2)
    axes.tick_params(colors=PLAIN, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_gain(report: dict[str, Any]) -> NDArray[np.uint8]:
    """Held-out gain by generation with its interval: [SIDE / 2, SIDE, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE / 100, SIDE / 200), dpi=100, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.12, 0.17, 0.85, 0.68))
    generations = [point["generation"] for point in report["validations"]]
    gains = [point["gain"] for point in report["validations"]]
    low, high = ([gain[side] for gain in gains] for side in ("low", "high"))
    axes.fill_between(generations, low, high, color=CALIBRATED, alpha=0.18, linewidth=0)
    axes.plot(generations, [gain["mean"] for gain in gains], color=CALIBRATED, marker="o")
    axes.axhline(0, color=PLAIN, linewidth=1)
    axes.set_title("reward gained on held-out prompts", color=INK, fontsize=12, loc="left")
    axes.set_xlabel("generation", color=PLAIN, labelpad=-2)
    axes.tick_params(colors=PLAIN, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _caption(thumbnail: Image.Image, title: str, colour: str, left: int, width: int) -> None:
    draw = ImageDraw.Draw(thumbnail)
    draw.rectangle((left, 0, left + width - 1, CAPTION - 1), fill=colour)
    font = ImageFont.load_default(size=20)
    draw.text((left + width / 2, CAPTION / 2), title, PAPER, font=font, anchor="mm")


def newest_pictures(folder: Path, prefix: str) -> Pictures:
    """The last eight pictures that SaveImage wrote as `prefix`_00001_.png …

    Raises FileNotFoundError where there are fewer.
    """
    files = sorted(folder.glob(f"{prefix}_*_.png"))[-PICTURES:]
    if len(files) < PICTURES:
        raise FileNotFoundError(
            f"{folder} holds {len(files)} pictures {prefix}_*_.png and {PICTURES} are needed: "
            "run both workflows first, for instance with scripts/demo."
        )
    return [Image.open(file).convert("RGB") for file in files]


def newest_folder(folder: Path, result: str) -> Path:
    """The subfolder that got its `result` last; FileNotFoundError where none has one."""
    results = sorted(folder.glob(f"*/{result}"), key=lambda file: file.stat().st_mtime)
    if not results:
        raise FileNotFoundError(f"No folder in {folder} has {result}: run its workflow first.")
    return results[-1].parent


def _save(thumbnail: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    thumbnail.save(temporary, format="JPEG", quality=88, optimize=True)
    os.replace(temporary, path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="ComfyUI's output folder")
    parser.add_argument("--only", choices=("calibrations", "evaluation"), help="not all of them")
    options = parser.parse_args()
    folder = options.output / "calibri"
    if options.only != "evaluation":
        plain, calibrated = (newest_pictures(folder, name) for name in ("plain", "calibrated"))
        run = newest_folder(folder, "report.json")
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        grid = Image.open(run / "before_after.png").convert("RGB")
        _save(generate_thumbnail(plain, calibrated), GENERATE)
        _save(calibrate_thumbnail(report, grid), CALIBRATE)
        _save(background_thumbnail(report), BACKGROUND)
    if options.only != "calibrations":
        run = newest_folder(folder, "evaluation.json")
        report = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        _save(evaluate_thumbnail(report, Image.open(run / "grid.png").convert("RGB")), EVALUATE)


if __name__ == "__main__":
    main()
