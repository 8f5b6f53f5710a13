"""A LoRA on a model that has converged: does aligning it to the VAE's levels help?

    python -m comfyui_calibri.experiments.ahpa_lora

The demo model learns a look it never saw, inverted colours, from a few pictures: plainly and by
methods of AHPA's comparison, from the same pictures, noise and first weights. Measured is the flow
matching loss on held-out prompts' pictures of that look. See docs/ahpa.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..ahpa.features import FeatureReader
from ..ahpa.hidden import read_blocks
from ..ahpa.levels import chosen_levels, read_levels
from ..ahpa.methods import used_levels
from ..ahpa.recipe import Recipe
from ..ahpa.targets import latent_features, whitened
from ..ahpa.training import Trainer, validation_loss
from ..calibri.selection import mean_interval
from ..demo.model import Flux
from ..demo.pictures import DemoModels
from ..demo.prompts import is_held_out, to_text
from ..demo.render import render
from ..demo.scenes import sample_pairs
from ..demo.text_encoder import TextEncoder, token_rows
from ..training.lora import Lora, linear_layers
from ..training.weights import instead

METHODS = ("none", "ahpa", "static", "latents")
FILE = "ahpa-lora.json"


@dataclass(frozen=True)
class Effort:
    """How much is learnt from, for how long, and measured."""

    pictures: int = 48
    held_out: int = 96
    steps: int = 300
    batch: int = 4
    rank: int = 8
    learning_rate: float = 1e-3
    marks: int = 6
    draws: int = 768  # of the validation loss


SMALL = Effort(pictures=6, held_out=4, steps=2, batch=2, marks=1, draws=8)


class Subject:
    """The demo with a LoRA on its blocks; satisfies `ahpa.training.Subject`."""

    device = torch.device("cpu")

    def __init__(
        self,
        dit: Flux,
        lora: Lora,
        latents: Tensor,
        prompts: list[str],
        text_encoder: TextEncoder,
    ) -> None:
        self.model: nn.Module = dit
        self.latents, self.parameters = latents, lora.parameters
        self.grid = (latents.shape[-2] // dit.config.patch, latents.shape[-1] // dit.config.patch)
        with torch.no_grad():
            self._tokens, self._pooled = text_encoder(token_rows([*prompts, ""]))

    def velocity(self, x: Tensor, t: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
        """Row N is the empty prompt. The LoRA must be acting."""
        told = torch.where(empty, len(self._tokens) - 1, rows)
        out: Tensor = self.model(x, t, self._tokens[told], self._pooled[told])
        return out

    def groups(self, rows: Tensor, empty: Tensor) -> tuple[Tensor, ...]:
        """All prompts are of one length."""
        return (torch.arange(len(rows)),)

    def look_up(self) -> None:
        """Nobody cancels from in here."""


def inverted(count: int, seed: int, held_out: bool) -> tuple[Tensor, list[str]]:
    """Pictures [N, 3, 64, 64] in 0…1 with inverted colours, and their prompts."""
    pictures, prompts = [], []
    for description, scene in sample_pairs(seed, arranged=True):
        text = to_text(description)
        if is_held_out(text) != held_out:
            continue
        pictures.append(1 - torch.from_numpy(render(scene)).permute(2, 0, 1).float() / 255)
        prompts.append(text)
        if len(prompts) == count:
            break
    return torch.stack(pictures), prompts


def run(method: str, seed: int, effort: Effort) -> list[dict[str, float]]:
    """Train one LoRA; its validation loss at every mark, step 0 first."""
    models = DemoModels.load()
    for part in (models.dit, models.text_encoder, models.autoencoder):
        part.requires_grad_(False)
    blocks = [block.module for block in read_blocks(models.dit)]
    lora = Lora(
        models.dit, linear_layers(models.dit, blocks), effort.rank, float(effort.rank), seed
    )
    pictures, prompts = inverted(effort.pictures, 1, held_out=False)
    others, other_prompts = inverted(effort.held_out, 2, held_out=True)
    encode = models.autoencoder.encode
    with torch.no_grad():
        latents, held_out = (
            torch.cat([encode(part) for part in p.split(16)]) for p in (pictures, others)
        )
    subject = Subject(models.dit, lora, latents, prompts, models.text_encoder)
    judged = Subject(models.dit, lora, held_out, other_prompts, models.text_encoder)
    recipe = Recipe(
        steps=effort.steps,
        batch=effort.batch,
        learning_rate=effort.learning_rate,
        warm_up=min(20, effort.steps),
        ema=0.98,
        method=method,
        seed=seed,
    )
    encoder = models.autoencoder.taesd_encoder
    levels = used_levels(method, chosen_levels(read_levels(encoder), "middle, deep"))
    features = None
    if levels:
        found = FeatureReader(encoder, levels, encode).read(pictures, subject.grid)
        features = torch.cat([whitened(level, recipe.width) for level in found], dim=1).__getitem__
    elif method == "latents":
        features = latent_features(latents, subject.grid, recipe.width).__getitem__
    trainer = Trainer(subject, recipe, levels, features)
    rows = torch.arange(len(held_out))
    measured: list[dict[str, float]] = []

    def measure(trained: Trainer) -> None:
        step = trained.loop.step
        if step % max(1, effort.steps // effort.marks) and step != effort.steps:
            return
        with instead(subject.parameters, trained.averaged):
            loss = validation_loss(judged, rows, 0, effort.draws, 16)
        measured.append({"step": step, "loss": round(loss, 5)})

    with lora.acting():
        measure(trainer)
        trainer.train(measure)
    return measured


def summary(found: dict[str, list[list[dict[str, float]]]], effort: Effort) -> dict[str, Any]:
    """Each method's course by seed and its last loss minus the plain LoRA's, with an interval."""
    last = {name: np.array([course[-1]["loss"] for course in runs]) for name, runs in found.items()}
    return {
        "command": "python -m comfyui_calibri.experiments.ahpa_lora",
        "effort": asdict(effort),
        "courses": found,
        "last": {name: [float(value) for value in values] for name, values in last.items()},
        "minus plain": {
            name: {k: round(v, 5) for k, v in vars(mean_interval(values - last["none"])).items()}
            for name, values in last.items()
            if name != "none" and len(values) > 1
        },
    }


def main() -> None:
    """Train all and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".run/ahpa"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="almost nothing, to see that it works")
    options = parser.parse_args()
    torch.set_num_threads(1)
    effort = SMALL if options.small else Effort()
    found: dict[str, list[list[dict[str, float]]]] = {}
    for method in METHODS:
        for seed in range(options.seeds):
            found.setdefault(method, []).append(run(method, seed, effort))
            print(method, seed, found[method][-1], flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    told = summary(found, effort)
    (options.folder / FILE).write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["minus plain"], indent=1))


if __name__ == "__main__":
    main()
