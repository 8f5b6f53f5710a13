"""The one training loop behind the demo's three models: seeded, resumable, CPU or GPU.

The data of step n depend on (seed, n) alone, so a run that was killed and started again
goes through the same batches as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. Learning rate: warm-up, constant, then cosine to `floor`."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 100
    decay_from: float = 0.4
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    stop_at: int | None = None
    """Step at which training ends before the schedule does."""

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = max(0.0, step / self.steps - self.decay_from) / (1 - self.decay_from)
        low = self.learning_rate * self.floor
        return low + (self.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * done))


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    folder: Path,
    *,
    save_every: int = 200,
    keep: tuple[int, ...] = (),
    log: Callable[[str], None] = print,
) -> None:
    """Train `model` in place by minimising `loss(step)`; ends with its averaged (EMA) weights.

    State is kept in `folder/name.pt` and read from there if present. The averaged weights of the
    steps in `keep` are written to `folder/name-STEP.pt`, for a choice among them afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / f"{name}.pt"
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
    )
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    first = 0
    if state_file.exists():
        state = torch.load(state_file, map_location=next(model.parameters()).device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], int(state["step"])
        log(f"{name}: continuing at step {first}")

    started, mean_loss = time.monotonic(), 0.0
    last = recipe.stop_at or recipe.steps
    for step in range(first, last):
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        _average(average, model, min(recipe.ema, (step + 1) / (step + 10)))
        mean_loss = value.item() if step == first else 0.98 * mean_loss + 0.02 * value.item()
        done = step + 1
        if done % 50 == 0 or done == last:
            rate = (done - first) * recipe.batch / (time.monotonic() - started)
            log(f"{name}: step {done}/{last}  loss {mean_loss:.4f}  {rate:.0f} samples/s")
        if done % save_every == 0 or done == last:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": done,
            }
            write(state_file, state)
        if done in keep:
            write(folder / f"{name}-{done}.pt", average)
    model.load_state_dict(average)
    model.eval()


def write(path: Path, state: dict[str, object]) -> None:
    """Save with torch, by way of a temporary file, so that a kill leaves the old one whole."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, keep: float) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - keep)
        else:
            average[key].copy_(value)


def channels_last(model: Model) -> Model:
    """Store a model's convolutions the way CPUs and GPUs run them fastest; returns the model."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model
