"""What docs/demo-model.md says of the plain demo model: losses, and the checker over steps and cfg.

    python -m comfyui_calibri.experiments.demo_card losses
    python -m comfyui_calibri.experiments.demo_card curves

Both write into docs/demo-card.json; `curves` keeps each of its cells there as soon as it is
measured, and goes on where it stopped. About ten minutes of one CPU core, nearly all for `curves`.
Prompts are those that `demo_evidence.py` judges on, which nothing was trained, searched or selected
on, one picture each. `demo_card_pictures.py` draws what is in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..calibri.atomic_file import write_atomically
from ..calibri.coefficients import coefficient_space
from ..calibri.ensemble_space import ensemble_space
from ..calibri.evaluation import Floats, samples
from ..calibri.selection import mean_interval
from ..demo.checker import check
from ..demo.evaluator import DemoEvaluator
from ..demo.pictures import DemoModels
from ..demo.prompts import is_held_out, parse, to_text
from ..demo.render import render
from ..demo.scenes import sample_pairs
from ..demo.text_encoder import token_rows
from .demo_evidence import JUDGE_SEED, judged_prompts
from .demo_judge import measure

CARD = Path(__file__).parents[1] / "docs" / "demo-card.json"
STEP_COUNTS = (1, 2, 4, 8, 15, 30)
SCALES = (1.0, 2.0, 3.0, 5.0)
PAIRS = 256
"""Held-out prompts with a picture drawn for each, for the losses."""
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Noise levels (sigma) at which the flow-matching loss is taken."""
_SEED = 20_27


def held_out_pairs(count: int, seed: int, arranged: bool) -> tuple[list[str], NDArray[np.uint8]]:
    """Held-out prompts, and a picture [count, 64, 64, 3] drawn by the program for each."""
    prompts: list[str] = []
    pictures: list[NDArray[np.uint8]] = []
    for description, scene in sample_pairs(seed, arranged):
        text = to_text(description)
        if is_held_out(text) and text not in prompts:
            prompts.append(text)
            pictures.append(render(scene))
        if len(prompts) == count:
            break
    return prompts, np.stack(pictures)


def losses(models: DemoModels) -> dict[str, Any]:
    """What each network leaves wrong on pictures it has not seen."""
    prompts, drawn = held_out_pairs(PAIRS, _SEED, arranged=True)
    pictures = _tensor(drawn)
    latents = models.autoencoder.encode(pictures)
    restored = models.autoencoder.decode(latents).clamp(0, 1)
    error = (restored - pictures).square().mean((1, 2, 3))
    rounded = (restored.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    others = prompts[1:] + prompts[:1]
    return {
        "pairs": PAIRS,
        "autoencoder": {
            "psnr_db": _mean((-10 * error.log10()).double().numpy(), 2),
            "every_fact_of_the_restored": _mean(_all_facts(rounded, prompts)),
            "every_fact_of_the_drawn": _mean(_all_facts(drawn, prompts)),
        },
        "reward": {
            "drawn": _mean(_reward(models, drawn, prompts)),
            "restored": _mean(_reward(models, rounded, prompts)),
            "another_pictures_prompt": _mean(_reward(models, drawn, others)),
        },
        "flow_matching": [
            {
                "sigma": sigma,
                **{
                    name: _mean(_flow_loss(models, latents, said, sigma))
                    for name, said in (
                        ("its_prompt", prompts),
                        ("no_prompt", [""] * PAIRS),
                        ("another_prompt", others),
                    )
                },
            }
            for sigma in LEVELS
        ],
    }


def curves(models: DemoModels, known: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each (cfg, steps) that `known` lacks: mean and 95 % interval of every measure."""
    prompts = judged_prompts()
    space = ensemble_space(coefficient_space(models.backbone, "gate"))
    bucket = samples(JUDGE_SEED, "judge", 0, range(len(prompts)))
    measured = {(row["cfg"], row["steps"]) for row in known}
    for cfg in SCALES:
        for steps in STEP_COUNTS:
            if (cfg, steps) in measured:
                continue
            evaluator = DemoEvaluator(models, space, prompts, steps, cfg)
            (pictures,) = evaluator.images(space.identity[None], bucket)
            values = measure(models.reward, pictures, prompts)
            yield {
                "cfg": cfg,
                "steps": steps,
                **{name: _mean(value) for name, value in values.items()},
            }


def _flow_loss(models: DemoModels, latents: Tensor, prompts: list[str], sigma: float) -> Floats:
    """Mean square error of the velocity [P] at one noise level, the noise the same for all."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(_SEED))
    mixed = (1 - sigma) * latents + sigma * noise
    context, pooled = models.text_encoder(token_rows(prompts))
    found = models.dit(mixed, torch.full((len(mixed),), sigma), context, pooled)
    error: Tensor = found - (noise - latents)
    return np.asarray(error.square().mean((1, 2, 3)).double().numpy())


def _reward(models: DemoModels, pictures: NDArray[np.uint8], prompts: list[str]) -> Floats:
    scores = models.reward.score(torch.from_numpy(pictures).float() / 255, prompts)
    return np.asarray(scores.double().numpy())


def _all_facts(pictures: NDArray[np.uint8], prompts: list[str]) -> Floats:
    pairs = zip(pictures, prompts, strict=True)
    return np.array([check(picture, parse(text)).all_facts for picture, text in pairs])


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def _mean(values: Floats, digits: int = 4) -> dict[str, float]:
    """The mean and its 95 % interval over prompts."""
    interval = mean_interval(values)
    return {name: round(value, digits) for name, value in vars(interval).items()}


def main() -> None:
    """One part per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("losses", "curves"))
    parser.add_argument("--file", type=Path, default=CARD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    card = json.loads(options.file.read_text()) if options.file.exists() else {}
    models = DemoModels.load()
    began = time.process_time()
    with torch.inference_mode():
        if options.part == "losses":
            card["losses"] = losses(models)
            _save(card, options.file)
        else:
            part = card.setdefault("curves", {"prompts": len(judged_prompts()), "cells": []})
            for cell in curves(models, part["cells"]):
                part["cells"].append(cell)
                _save(card, options.file)
                print(f"{time.process_time() - began:.0f} s {json.dumps(cell)}", flush=True)


def _save(card: dict[str, Any], path: Path) -> None:
    write_atomically(path, (json.dumps(card, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
