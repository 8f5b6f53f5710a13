"""The pictures of docs/demo-model.md: data, samples, losses, and the checker over steps and cfg.

    python -m comfyui_calibri.experiments.demo_card_pictures

Draws docs/demo-card.json (`demo_card.py`) and new samples into docs/images; a minute of one core.
The prompts are the first that `demo_evidence.py` judges on, not chosen ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..calibri.coefficients import coefficient_space
from ..calibri.ensemble_space import ensemble_space
from ..calibri.evaluation import samples
from ..calibri.figure_grid import draw_grid
from ..calibri.figure_style import FAINT, GRID, STYLE
from ..calibri.presets import check_preset, load_preset
from ..calibri.report import save_picture
from ..demo.evaluator import DemoEvaluator
from ..demo.pictures import DemoModels, to_bytes
from ..demo.weights import WEIGHTS
from .demo_card import CARD, SCALES, STEP_COUNTS, held_out_pairs
from .demo_evidence import JUDGE_SEED, judged_prompts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pictures = NDArray[np.uint8]

IMAGES = CARD.parent / "images"
COLUMNS = 8
PRESET = WEIGHTS / "calibri" / "calibri-demo.safetensors"
# Okabe and Ito's colours, told apart by people who see few; shapes tell them apart in grey.
LINES = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
_DATA_SEED = 5


def draw_samples(models: DemoModels) -> Pictures:
    """Rows of held-out prompts from the same noise: plain over steps and cfg, and calibrated."""
    prompts = judged_prompts()[:COLUMNS]
    space = ensemble_space(coefficient_space(models.backbone, "gate"))
    _, (calibrated,) = check_preset(load_preset(PRESET), models.backbone)
    bucket = samples(JUDGE_SEED, "judge", 0, range(COLUMNS))
    rows, labels = [], []
    for label, steps, cfg, vector in (
        ("2 steps", 2, 1.0, space.identity),
        ("4 steps", 4, 1.0, space.identity),
        ("4, calibrated", 4, 1.0, calibrated),
        ("30 steps", 30, 1.0, space.identity),
        ("4, cfg 3", 4, 3.0, space.identity),
        ("30, cfg 3", 30, 3.0, space.identity),
    ):
        evaluator = DemoEvaluator(models, space, prompts, steps, cfg)
        rows.append(evaluator.images(vector[None], bucket)[0])
        labels.append(label)
    return draw_grid(rows, labels, prompts)


def draw_data(models: DemoModels) -> Pictures:
    """What the networks learned from, and what the autoencoder makes of it."""
    prompts, arranged = held_out_pairs(COLUMNS, _DATA_SEED, arranged=True)
    _, scattered = held_out_pairs(COLUMNS, _DATA_SEED, arranged=False)
    pictures = torch.from_numpy(arranged).permute(0, 3, 1, 2).float() / 255
    restored = models.autoencoder.decode(models.autoencoder.encode(pictures)).clamp(0, 1)
    shown = to_bytes(restored.permute(0, 2, 3, 1)).numpy()
    return draw_grid(
        [arranged, shown, scattered],
        ["arranged", "restored", "scattered"],
        prompts,
    )


def draw_curves(card: Mapping[str, Any]) -> Pictures:
    """Two of the checker's measures and the reward over steps, a line for each cfg; the loss."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(14, 3.7), dpi=100, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        panels = figure.subplots(1, 4)
        for axes, (name, title) in zip(
            panels,
            (
                ("all_facts", "Checker: every fact right"),
                ("facts", "Checker: facts shown"),
                ("reward", "Demo reward"),
            ),
            strict=False,
        ):
            _draw_measure(axes, card["curves"]["cells"], name)
            axes.set_title(title)
            axes.set_ylabel("log-probability" if name == "reward" else "share")
        panels[0].legend(loc="lower right")
        _draw_loss(panels[3], card["losses"]["flow_matching"])
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_measure(axes: Axes, cells: list[dict[str, Any]], name: str) -> None:
    for scale, (colour, marker) in zip(SCALES, LINES, strict=True):
        found = sorted((c for c in cells if c["cfg"] == scale), key=lambda cell: cell["steps"])
        steps = [cell["steps"] for cell in found]
        mean, low, high = ([cell[name][key] for cell in found] for key in ("mean", "low", "high"))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(steps, mean, color=colour, marker=marker, ms=4, lw=1.6, label=f"cfg {scale:g}")
    axes.set_xscale("log")
    axes.set_xticks(STEP_COUNTS, [str(steps) for steps in STEP_COUNTS])
    axes.minorticks_off()
    axes.set_xlabel("steps")
    axes.grid(axis="y", color=GRID)


def _draw_loss(axes: Axes, rows: list[dict[str, Any]]) -> None:
    sigmas = [row["sigma"] for row in rows]
    for (name, label), (colour, marker) in zip(
        (("its_prompt", "its prompt"), ("no_prompt", "none"), ("another_prompt", "another's")),
        LINES,
        strict=False,
    ):
        mean, low, high = ([row[name][key] for row in rows] for key in ("mean", "low", "high"))
        axes.fill_between(sigmas, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(sigmas, mean, color=colour, marker=marker, ms=4, lw=1.6, label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.03, 2)
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_title("Flow-matching loss")
    axes.set_xlabel("noise level (sigma)")
    axes.set_ylabel("mean square error")
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="upper left", title="prompt given", labelcolor=FAINT)


def main() -> None:
    """Write the three pictures."""
    torch.set_num_threads(1)
    models = DemoModels.load()
    card = json.loads(CARD.read_text())
    with torch.inference_mode():
        for name, picture in (
            ("demo_data", draw_data(models)),
            ("demo_samples", draw_samples(models)),
            ("demo_card", draw_curves(card)),
        ):
            path: Path = IMAGES / f"{name}.png"
            save_picture(path, picture)
            print(path, flush=True)


if __name__ == "__main__":
    main()
