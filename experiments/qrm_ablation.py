"""Is it quality, or more numbers? The QRM on the demo model against controls: docs/qrm.md's tables.

    python -m comfyui_calibri.experiments.qrm_ablation            # goes on where it was stopped
    python -m comfyui_calibri.experiments.qrm_ablation --small    # seconds, for CI

Every row is trained with equal data, steps and learning rate, for every seed; its pictures of
held-out prompts are then judged by the checker, which nothing was trained on or stopped by. Each
(row, seed) is a line of `results.jsonl` as soon as it is known; the report is made of what is
there. See `qrm_rows.py` for the rows and `qrm_report.py` for the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..calibri.diversity import diversity
from ..calibri.evaluation import samples
from ..calibri.presets import check_preset, load_preset
from ..demo.autoencoder import Autoencoder
from ..demo.pictures import DemoModels, to_bytes
from ..demo.prompts import generate_prompts, parse
from ..demo.render import render
from ..demo.scenes import arrange_scene
from ..demo.trainee import DemoTrainee
from ..demo.weights import WEIGHTS
from ..qrm.config import QRMConfig
from ..qrm.losses import Latents
from ..qrm.measuring import draw, plain_rewards
from ..qrm.recipe import Recipe
from ..qrm.trainee import Trainee
from ..qrm.training import split_of, train
from .demo_judge import measure
from .qrm_controls import LoraTrainee, Shuffled
from .qrm_report import write_report
from .qrm_rows import RECIPE, REFERENCE, ROWS, Row

SEEDS = (1, 2, 3)
IMAGES = 2
JUDGE_SEED = 20_27
PRESET = WEIGHTS / "calibri" / "calibri-demo.safetensors"
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Size:
    """How much is trained on, stopped by and judged."""

    train: int = 192
    stopping: int = 64
    judged: int = 64
    seeds: tuple[int, ...] = SEEDS
    rows: tuple[Row, ...] = ROWS


SMALL = Size(4, 2, 3, (1,), (ROWS[0], ROWS[1], ROWS[5]))
_SMALL_RECIPE: dict[str, Any] = {"steps": 2, "batch": 2, "validate_every": 2, "warm_up": 0}


class Bench:
    """The demo, its prompts in three roles, and what all rows share."""

    def __init__(self, size: Size) -> None:
        self.models = DemoModels.load()
        self.size = size
        trained = generate_prompts(size.train, 1, "train")
        stopping = generate_prompts(size.stopping, 1, "test")
        drawn = generate_prompts(size.judged + size.stopping, 0, "test")
        self.judged = [text for text in drawn if text not in set(stopping)][: size.judged]
        self.prompts, self.split = split_of(trained, stopping)
        self.config = QRMConfig.for_backbone(self.models.dit, 64, 64)
        self.latents = Latents(
            _latents(self.models.autoencoder, trained), tuple(range(len(trained)))
        )
        trainee = DemoTrainee(self.models, self.prompts)
        self.plain = plain_rewards(
            trainee, self.models.reward.score, self.split.train, replace(RECIPE, seed=0)
        )

    def trainee(self, row: Row, prompts: Sequence[str], gains: Tensor | None = None) -> DemoTrainee:
        """The host of a row's module."""
        kind = LoraTrainee if row.name.startswith("LoRA") else DemoTrainee
        return kind(self.models, prompts, gains=gains, cut=row.cut)

    def trained(self, row: Row, seed: int, recipe: Recipe) -> tuple[nn.Module, dict[str, Any]]:
        """Train a row; its module, and what its course was."""
        torch.manual_seed(seed)
        module = row.make(self.models, self.config)
        plain: Mapping[int, float] = self.plain
        if row.constant_difficulty:
            plain = dict.fromkeys(plain, float(np.mean(list(plain.values()))))
        began = time.monotonic()
        found = train(
            self.trainee(row, self.prompts),
            module,
            self.models.reward.score,
            replace(recipe, seed=seed),
            self.split,
            latents=self.latents,
            plain=plain,
        )
        course = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "best_step": found.best_step,
            "stopping": [[step, round(value, 4)] for step, value in found.history.stopping],
            "seconds": round(time.monotonic() - began, 1),
        }
        if not row.constant_difficulty:
            course["difficulty"] = [found.difficulty.mean, found.difficulty.deviation]
        return module, course

    @torch.no_grad()
    def judge(self, trainee: Trainee, module: nn.Module | None) -> dict[str, list[float]]:
        """Mean scores [P] by held-out prompt, and its pictures' diversity."""
        rows = [row for row in range(len(self.judged)) for _ in range(IMAGES)]
        bucket = samples(JUDGE_SEED, "judge", 0, rows)
        pictures, _ = draw(trainee, module, self.models.reward.score, bucket, 16)
        taken = to_bytes(pictures).numpy()
        prompts = [self.judged[row] for row in rows]
        scores = measure(self.models.reward, taken, prompts)
        found = {name: v.reshape(-1, IMAGES).mean(1) for name, v in scores.items()}
        found["diversity"] = diversity(taken.reshape(-1, IMAGES, *taken.shape[1:]))
        return {name: np.round(values, 5).tolist() for name, values in found.items()}


def runs(bench: Bench, folder: Path, small: bool) -> Iterator[dict[str, Any]]:
    """Every (variant, seed) of the tables, row by row."""
    (folder / "modules").mkdir(parents=True, exist_ok=True)
    done = {(one["row"], one["seed"]) for one in results(folder)}
    gains = preset_gains(bench.models)
    host = bench.trainee(ROWS[0], bench.judged)
    if ("plain", 0) not in done:
        yield {"row": "plain", "group": "main", "seed": 0, "scores": bench.judge(host, None)}
    calibrated = bench.trainee(ROWS[0], bench.judged, gains)
    if ("Calibri alone", 0) not in done:
        scores = bench.judge(calibrated, None)
        yield {"row": "Calibri alone", "group": "main", "seed": 0, "scores": scores}
    for row in bench.size.rows:
        for seed in bench.size.seeds:
            if (row.shuffled or row.name, seed) in done:
                continue
            recipe = replace(row.recipe, **_SMALL_RECIPE) if small else row.recipe
            module, course = bench.trained(row, seed, recipe)
            module.eval()
            about = {"group": row.group, "seed": seed}
            judged = bench.judge(bench.trainee(row, bench.judged), module)
            if row.name == REFERENCE:
                torch.save(module.state_dict(), folder / "modules" / f"seed-{seed}.pt")
                course["expected"] = _expected(bench, module)
            yield {"row": row.name, **about, "scores": judged, **course}
            if row.name == REFERENCE:
                both = bench.judge(calibrated, module)
                yield {"row": "QRM + Calibri preset", **about, "scores": both}
            if row.shuffled:
                other = bench.judge(host, Shuffled(module, IMAGES))
                group = "controls" if row.group == "main" else row.group
                yield {"row": row.shuffled, "group": group, "seed": seed, "scores": other}


def results(folder: Path) -> list[dict[str, Any]]:
    """The lines that are there; one that was cut off by a kill is done again."""
    path = folder / RESULTS
    found: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@torch.no_grad()
def _expected(bench: Bench, module: nn.Module) -> list[float]:
    """What the quality token says of each held-out prompt at pure noise, in standard deviations."""
    trainee = DemoTrainee(bench.models, bench.judged)
    rows = range(len(bench.judged))
    x = torch.zeros(len(rows), *trainee.shape)
    found = trainee.denoised(x, torch.ones(len(rows)), rows, module).quality
    assert found is not None
    return [round(value, 4) for value in found.tolist()]


@torch.no_grad()
def _latents(autoencoder: Autoencoder, prompts: Sequence[str]) -> Tensor:
    """Latents [N, 16, 8, 8] of a drawn picture of each prompt."""
    rng = np.random.default_rng(1)
    pictures = np.stack([render(arrange_scene(parse(text), rng)) for text in prompts])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return torch.cat([autoencoder.encode(part) for part in batch.split(16)])


def preset_gains(models: DemoModels) -> Tensor:
    """The shipped preset's gains [1, T]."""
    preset = load_preset(PRESET)
    space, vectors = check_preset(preset, models.backbone)
    return torch.as_tensor(space.expand(vectors), dtype=torch.float32)


def main() -> None:
    """Run what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few steps, for CI")
    parser.add_argument("--folder", type=Path, default=Path(".run/qrm-ablation"))
    parser.add_argument("--report", type=Path, help="where tables and figures go")
    parser.add_argument("--only-report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.only_report:
        bench = Bench(SMALL if options.small else Size())
        for found in runs(bench, options.folder, options.small):
            with (options.folder / RESULTS).open("a") as file:
                file.write(json.dumps(found) + "\n")
            means = {name: round(float(np.mean(v)), 3) for name, v in found["scores"].items()}
            print(found["row"], found["seed"], found.get("seconds"), means, flush=True)
    write_report(results(options.folder), options.report or options.folder)


if __name__ == "__main__":
    main()
