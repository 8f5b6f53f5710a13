"""AHPA against its baselines and ablations: one small model each, trained from nothing.

    python -m comfyui_calibri.experiments.ahpa_compare --folder .run/ahpa

All runs have the same data, batches, noise, first weights and steps; the method alone differs. A
run that was stopped goes on, a run that is done is not repeated: `results.jsonl` in the folder has
a line for each. `--small` does the same with almost nothing, to see that it works. The paper's
claims and what is ours: docs/ahpa.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from ..ahpa.targets import cached_levels, encoder_mark, latent_features, vision_features
from ..ahpa.training import Features, Trainer
from ..demo.model import Flux, FluxConfig
from ..demo.reward import DemoReward
from ..demo.text_encoder import TextEncoder
from ..demo.weights import REWARD, TEXT_ENCODER, WEIGHTS, load_into
from ..training.weights import instead
from .ahpa_measures import Subject, measure, tokens_of
from .ahpa_pictures import CHANNELS, draw_pictures, encoded, train_autoencoder

RESULTS = "results.jsonl"
_TIMES = 21


@dataclass(frozen=True)
class Effort:
    """How much is drawn, trained and measured."""

    pictures: int = 8192
    held_out: int = 512
    autoencoder_steps: int = 2000
    steps: int = 4000
    batch: int = 32
    measured: int = 256
    marks: int = 8  # measurements on the way
    double_blocks: int = 2
    single_blocks: int = 6

    def every(self) -> int:
        """Steps between two measurements."""
        return max(1, self.steps // self.marks)


SMALL = Effort(
    pictures=12,
    held_out=8,
    autoencoder_steps=1,
    steps=2,
    batch=4,
    measured=8,
    marks=1,
    double_blocks=1,
    single_blocks=2,
)
SMALL_METHODS = ("ahpa", "none", "frozen", "repa")


class Comparison:
    """The data that all runs share, made once in `folder`."""

    def __init__(self, folder: Path, effort: Effort) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.effort = folder, effort
        self.pictures = draw_pictures(effort.pictures, seed=1, held_out=False)
        self.held_out = draw_pictures(effort.held_out, seed=2, held_out=True)
        steps = effort.autoencoder_steps
        self.autoencoder = train_autoencoder(self.pictures, steps, min(16, effort.batch), folder)
        self.text_encoder = load_into(TextEncoder(), TEXT_ENCODER)
        self.detector = DemoReward.load(WEIGHTS / REWARD).detector
        self.latents = encoded(self.autoencoder, self.pictures)
        self.validation = encoded(self.autoencoder, self.held_out)

    def run(self, method: str, seed: int) -> dict[str, Any]:
        """Train by one method; everything that was measured, JSON values."""
        effort = self.effort
        recipe = Recipe(
            steps=effort.steps,
            batch=effort.batch,
            learning_rate=1e-3,
            warm_up=min(150, effort.steps),
            decay_from=0.5,
            ema=0.998,
            method=method,
            save_every=effort.every(),
            seed=seed,
        )
        torch.manual_seed(seed)
        config = FluxConfig(
            double_blocks=effort.double_blocks,
            single_blocks=effort.single_blocks,
            channels=CHANNELS,
        )
        model = Flux(config)
        model.start_as_identity()
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
                found = measure(
                    judged, self.held_out, self.autoencoder, self.detector, effort.measured
                )
            measured.append({"step": step, **found})
            run.mkdir(parents=True, exist_ok=True)
            points.write_text(json.dumps(measured), encoding="utf-8")

        done = trainer.train(watch)
        told: dict[str, Any] = {"method": method, "seed": seed, "measured": measured}
        told["seconds"] = round(time.monotonic() - began, 1)
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


def compare(
    folder: Path,
    effort: Effort,
    methods: tuple[str, ...],
    seeds: range,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """All runs that are not done yet, AHPA's first: the controls need its routers."""
    file = folder / RESULTS
    results = []
    if file.exists():
        results = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    done = {(result["method"], result["seed"]) for result in results}
    pending = [(m, s) for m in methods for s in seeds if (m, s) not in done]
    if pending:
        comparison = Comparison(folder, effort)
        # One more of AHPA: the router "of another seed" for the last of the others.
        extra = [("ahpa", seeds.stop)] if "frozen" in methods else []
        first = [pair for pair in [*pending, *extra] if pair[0] == "ahpa" and pair not in done]
        for method, seed in [*first, *(pair for pair in pending if pair[0] != "ahpa")]:
            result = comparison.run(method, seed)
            results.append(result)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")
            say(f"{method}, seed {seed}: {result['measured'][-1]} in {result['seconds']} s")
    return [result for result in results if result["seed"] in seeds]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: each method's last measurement, mean ± standard deviation over the seeds, and the
    step at which it first has the plain run's final validation loss.
    """
    plain = [r["measured"][-1]["loss"] for r in results if r["method"] == "none"]
    goal = float(np.mean(plain)) if plain else None
    lines = ["| method | seeds | loss | Fréchet | facts | steps to plain |", "|---|" + "---|" * 5]
    for method in dict.fromkeys(result["method"] for result in results):
        own = [result["measured"] for result in results if result["method"] == method]
        cells = []
        for name in ("loss", "frechet", "facts"):
            values = [points[-1][name] for points in own]
            cells.append(f"{np.mean(values):.4f} ± {np.std(values):.4f}")
        reached = [
            next((p["step"] for p in points if goal is not None and p["loss"] <= goal), None)
            for points in own
        ]
        known = [step for step in reached if step is not None]
        when = f"{np.mean(known):.0f} ({len(known)} of {len(own)})" if known else "–"
        lines.append(f"| {method} | {len(own)} | {' | '.join(cells)} | {when} |")
    return "\n".join(lines)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".run/ahpa"))
    parser.add_argument("--small", action="store_true", help="almost nothing, to see that it works")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Effort().steps)
    parser.add_argument("--methods", default=", ".join(METHODS), help="with commas between")
    options = parser.parse_args()
    methods = tuple(word.strip() for word in options.methods.split(","))
    effort, seeds = Effort(steps=options.steps), range(options.seeds)
    if options.small:
        effort, methods, seeds = SMALL, SMALL_METHODS, range(1)
    print(table(compare(options.folder, effort, methods, seeds)))


if __name__ == "__main__":
    main()
