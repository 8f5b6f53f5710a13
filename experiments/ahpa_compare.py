"""AHPA against its baselines and ablations: one small SiT each, trained from nothing.

    python -m comfyui_calibri.experiments.ahpa_compare            # goes on where it was stopped
    python -m comfyui_calibri.experiments.ahpa_compare --small    # seconds, for CI

All runs have the same data, batches, noise, first weights and steps; the method alone differs. A
run that was stopped goes on, a run that is done is not repeated: `results.jsonl` in the folder has
a line for each, and the report is made of what is there (`ahpa_report.py`). Once AHPA's runs are
done, several processes may share a folder, each with `--methods` of its own. The paper's claims and
what is ours: docs/ahpa.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..ahpa.feature_cache import CacheKey
from ..ahpa.features import FeatureReader
from ..ahpa.levels import Level, chosen_levels, read_levels
from ..ahpa.methods import DEEPEST, LATENTS, LEVELS, METHODS, VISION, used_levels
from ..ahpa.recipe import Recipe
from ..ahpa.router_file import TrainedRouter, can_be_kept, load_router, save_router
from ..ahpa.sit import SiT, SiTConfig
from ..ahpa.targets import cached_levels, encoder_mark, latent_features, vision_features
from ..ahpa.training import Features, Trainer
from ..demo.reward import DemoReward
from ..demo.text_encoder import LENGTH, WIDTH, TextEncoder
from ..demo.weights import REWARD, TEXT_ENCODER, WEIGHTS, load_into
from ..training.weights import instead
from .ahpa_measures import Subject, draw, flow_loss, judge, reference, tokens_of
from .ahpa_pictures import CHANNELS, FACTOR, SIDE, draw_pictures, encoded, train_autoencoder
from .ahpa_report import CURVE, write_report

RESULTS, EFFORT, REFERENCE = "results.jsonl", "effort.json", "reference.json"
_TIMES = 21


@dataclass(frozen=True)
class Effort:
    """How much is drawn, trained and measured."""

    pictures: int = 3072
    held_out: int = 256
    autoencoder_steps: int = 500
    autoencoder_batch: int = 8
    steps: int = 1000
    batch: int = 8
    measured: int = 96
    marks: int = 4  # measurements of the loss on the way
    hidden: int = 96
    depth: int = 6
    heads: int = 3

    def every(self) -> int:
        """Steps between two measurements."""
        return max(1, self.steps // self.marks)


SMALL = Effort(
    pictures=12,
    held_out=8,
    autoencoder_steps=1,
    autoencoder_batch=4,
    steps=2,
    batch=4,
    measured=4,
    marks=1,
    hidden=32,
    depth=3,
    heads=2,
)
SMALL_METHODS = ("ahpa", "none", "frozen", "repa")


class Comparison:
    """The data that all runs share, made once in `folder`."""

    def __init__(self, folder: Path, effort: Effort) -> None:
        self.folder, self.effort = folder, effort
        self.pictures = draw_pictures(effort.pictures, seed=1, held_out=False)
        self.held_out = draw_pictures(effort.held_out, seed=2, held_out=True)
        self.autoencoder = train_autoencoder(
            self.pictures, effort.autoencoder_steps, effort.autoencoder_batch, folder
        )
        self.text_encoder = load_into(TextEncoder(), TEXT_ENCODER)
        self.detector = DemoReward.load(WEIGHTS / REWARD).detector
        self.latents = encoded(self.autoencoder, self.pictures)
        self.validation = encoded(self.autoencoder, self.held_out)

    def reference(self) -> dict[str, float]:
        """What the measurements are at best, and by chance."""
        count = self.effort.measured
        return reference(self.validation, self.held_out, self.autoencoder, self.detector, count)

    def run(self, method: str, seed: int) -> dict[str, Any]:
        """Train by one method; everything that was measured, JSON values."""
        effort = self.effort
        recipe = Recipe(
            steps=effort.steps,
            batch=effort.batch,
            learning_rate=3e-3,
            warm_up=min(30, effort.steps),
            decay_from=0.5,
            ema=0.99,
            method=method,
            save_every=effort.every(),
            seed=seed,
        )
        torch.manual_seed(seed)
        config = SiTConfig(
            hidden=effort.hidden,
            depth=effort.depth,
            heads=effort.heads,
            channels=CHANNELS,
            side=SIDE // FACTOR,
            classes=0,
            pooled=LENGTH * WIDTH,
        )
        model = SiT(config)
        subject = Subject(model, self.latents, self.pictures.prompts, self.text_encoder)
        judged = Subject(model, self.validation, self.held_out.prompts, self.text_encoder)
        levels, features = self._features(method, subject.grid, recipe.width)
        # Another seed's for the control that is frozen; its own, turned round.
        router = None
        if METHODS[method].needs_router:
            router = load_router(self.router_path("ahpa", seed + (method == "frozen"))).router
        run = self.folder / f"{method.replace(' ', '-')}-{seed}"
        points = run / "measured.json"
        trainer = Trainer(subject, recipe, levels, features, router, run)
        measured: list[dict[str, float]] = []
        if points.exists():
            known = json.loads(points.read_text(encoding="utf-8"))
            measured = [point for point in known if point["step"] <= trainer.loop.step]
        began = time.monotonic()

        def watch(trained: Trainer) -> None:
            step = trained.loop.step
            if step % effort.every() and step != effort.steps:
                return
            with instead(trained.subject.parameters, trained.averaged):
                measured.append({"step": step, "loss": flow_loss(judged, 4 * effort.measured)})
            run.mkdir(parents=True, exist_ok=True)
            points.write_text(json.dumps(measured), encoding="utf-8")

        done = trainer.train(watch)
        told: dict[str, Any] = {"method": method, "seed": seed, "measured": measured}
        told["seconds"] = round(time.monotonic() - began, 1)
        told["drawn"] = judge(
            draw(judged, effort.measured, seed=1),
            self.held_out,
            self.autoencoder,
            self.detector,
            self.validation[: effort.measured],
        )
        told["training"] = _course(done.history.values["flow"])
        if done.alignment is not None and can_be_kept(method):
            hidden = config.hidden
            kept = TrainedRouter(method, levels, hidden, done.alignment.router, {})
            if not self.router_path(method, seed).exists():
                save_router(self.router_path(method, seed), kept)
            with torch.no_grad():
                times = torch.linspace(0, 1, _TIMES)
                weights = done.alignment.router(times, torch.zeros(_TIMES, 1, hidden))
            told["levels"] = [[level.module, level.group] for level in levels]
            told["router"] = np.round(weights.numpy(), 4).tolist()
        return told

    def router_path(self, method: str, seed: int) -> Path:
        """Where a run's router is."""
        return self.folder / f"router-{method.replace(' ', '-')}-{seed}.safetensors"

    def _features(
        self, method: str, grid: tuple[int, int], width: int
    ) -> tuple[tuple[Level, ...], Features | None]:
        target = METHODS[method].target
        if target == LATENTS:
            return (), latent_features(self.latents, grid, width).__getitem__
        if target == VISION:
            tokens = tokens_of(self.detector, self.pictures)
            return (), vision_features(tokens, grid, width).__getitem__
        if target not in (LEVELS, DEEPEST):
            return (), None
        encoder = self.autoencoder.encoder
        levels = used_levels(method, chosen_levels(read_levels(encoder), "middle, deep"))
        key = CacheKey(
            vae=encoder_mark(encoder, levels),
            pictures=self.pictures.prompts,  # drawn from one seed, in this order
            levels=tuple(level.module for level in levels),
            grid=grid,
            width=width,
        )
        reader = FeatureReader(encoder, levels, self.autoencoder.encode)
        place = self.folder / f"features-{key.fingerprint}"
        return levels, cached_levels(place, key, reader, self.pictures.batch, 16).__getitem__


def _course(losses: Sequence[float | None]) -> list[float]:
    """The flow loss of equal parts of the training, up to CURVE of them."""
    parts = np.array_split(np.array(losses, dtype=float), min(CURVE, len(losses)))
    return [round(float(part.mean()), 5) for part in parts]


def compare(
    folder: Path,
    effort: Effort,
    methods: tuple[str, ...],
    seeds: range,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """All runs that are not done yet, AHPA's first: the controls need its routers.

    Raises ValueError for a folder of runs of another effort.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, told = folder / RESULTS, folder / EFFORT
    if not told.exists():
        told.write_text(json.dumps(asdict(effort)), encoding="utf-8")
    elif json.loads(told.read_text(encoding="utf-8")) != asdict(effort):
        raise ValueError(
            f"{folder} holds runs of other sizes or steps: give the same, or another --folder."
        )
    # One more of AHPA: the router "of another seed" for the last of the others.
    extra = [("ahpa", seeds.stop)] if "frozen" in methods else []
    wanted = [*((method, seed) for method in methods for seed in seeds), *extra]
    pending = [run for run in wanted if run not in _done(file)]
    if pending:
        comparison = Comparison(folder, effort)
        if not (folder / REFERENCE).exists():
            (folder / REFERENCE).write_text(json.dumps(comparison.reference()), encoding="utf-8")
    for method, seed in sorted(pending, key=lambda run: run[0] != "ahpa"):
        if (method, seed) in _done(file):  # by another process
            continue
        result = comparison.run(method, seed)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result) + "\n")
        ended = {**result["measured"][-1], **result["drawn"]}
        say(f"{method}, seed {seed}: {ended} in {result['seconds']} s")
    return [result for result in _done(file).values() if result["seed"] in seeds]


def _done(file: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The runs whose results are there, by method and seed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    results = [json.loads(line) for line in lines]
    return {(result["method"], result["seed"]): result for result in results}


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".run/ahpa"))
    parser.add_argument("--small", action="store_true", help="almost nothing, to see that it works")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Effort().steps)
    parser.add_argument("--methods", default=", ".join(METHODS), help="with commas between")
    parser.add_argument("--report", type=Path, help="where tables and figures go")
    options = parser.parse_args()
    torch.set_num_threads(1)  # several processes may share a machine
    methods = tuple(word.strip() for word in options.methods.split(","))
    effort, seeds = Effort(steps=options.steps), range(options.seeds)
    if options.small:
        effort, methods, seeds = SMALL, SMALL_METHODS, range(1)
    results = compare(options.folder, effort, methods, seeds)
    best = json.loads((options.folder / REFERENCE).read_text(encoding="utf-8"))
    print(write_report(results, asdict(effort), best, options.report or options.folder))


if __name__ == "__main__":
    main()
