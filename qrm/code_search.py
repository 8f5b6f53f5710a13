"""Training a QRM by a reward without a gradient: a search over a low-dimensional code.

The code z [D] moves the matrices that are zero in an untrained module, its last layers, along D
seeded random directions: W = sum z_i R_i. All else in the module stays as it was made, so the
vectors depend on random features of timestep and prompt, and which of them count is searched. D is
tens, where an evolution strategy still learns from hundreds of pictures a generation
(docs/search.md); it finds less than gradients do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..calibri.atomic_file import write_atomically
from ..calibri.evaluation import Floats, Sample, noise_seed, samples, training_bucket
from ..calibri.search import create_search
from ..training.state import TrainingError
from ..training.weights import copied, learnt, put
from .losses import Difficulty
from .measuring import draw, plain_rewards, stopping_reward
from .recipe import Recipe
from .trainee import Score, Trainee
from .training import History, Split, Trained

CODE = 32
SPREAD = 0.4
"""How far a code of length 1 moves the output of a layer whose inputs have unit variance."""
BOUND = 4.0
RESULTS = "search.json"


class Code:
    """Random directions of a module's zero matrices, from a seed."""

    def __init__(self, module: nn.Module, seed: int, size: int = CODE) -> None:
        zero = {
            name: value
            for name, value in learnt(module).items()
            if value.ndim >= 2 and not bool(value.detach().any())
        }
        if not zero:
            raise TrainingError(
                "The module has no layer that is zero, so a search has nothing to begin at: search "
                "on an untrained module."
            )
        self.size = size
        self._directions: dict[str, Tensor] = {}
        for name, value in zero.items():
            generator = torch.Generator().manual_seed(noise_seed(seed, name, 0, 0, 0))
            directions = torch.randn(size, *value.shape, generator=generator)
            scale = SPREAD / (value.shape[-2] * size) ** 0.5
            self._directions[name] = (directions * scale).to(value)

    def weights(self, code: Floats) -> dict[str, Tensor]:
        """The matrices of a code [D]."""
        return {
            name: torch.tensordot(torch.as_tensor(code).to(directions), directions, dims=1)
            for name, directions in self._directions.items()
        }


def search_train(
    trainee: Trainee,
    module: nn.Module,
    score: Score,
    recipe: Recipe,
    split: Split,
    *,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    watch: Callable[[int, float], None] | None = None,
) -> Trained:
    """Search the code of `module`, in place; `recipe.steps` counts generations of 16 candidates.

    Each candidate draws the same `batch * accumulate` prompts from the same noise. `watch` hears of
    each generation's mean reward. Rewards are kept in `folder` as they come and the search is
    recomputed from them, so a killed run goes on as if it had not been. Raises TrainingError.
    """
    code, weights = Code(module, recipe.seed), learnt(module)
    start = copied(weights)
    zeros = np.zeros(code.size)
    search = create_search("default", zeros, zeros - BOUND, zeros + BOUND, recipe.seed)
    results = _Results(folder, {**(about or {}), "recipe": recipe.record()})
    history = History()

    def stopping(generation: int, mean: Floats) -> float:
        put(code.weights(mean), weights)
        key = f"stopping/{generation}"
        found = results.known(
            key, lambda: [stopping_reward(trainee, module, score, split.stopping, recipe)]
        )
        history.stopping.append((generation, found[0]))
        return found[0]

    try:
        best, best_step, best_reward = zeros, 0, stopping(0, zeros)
        for generation in range(1, recipe.steps + 1):
            size = recipe.batch * recipe.accumulate
            drawn = training_bucket(recipe.seed, generation, len(split.train), size)
            rows = [split.train[one.prompt] for one in drawn]
            bucket = samples(recipe.seed, "qrm", generation, rows)
            rewards: list[float] = []
            for index, candidate in enumerate(search.ask()):

                def measured(
                    candidate: Floats = candidate, bucket: Sequence[Sample] = bucket
                ) -> list[float]:
                    put(code.weights(candidate), weights)
                    return [float(draw(trainee, module, score, bucket, recipe.batch)[1].mean())]

                rewards += results.known(f"{generation}/{index}", measured)
            search.tell(np.array(rewards))
            history.add({"reward": float(np.mean(rewards))})
            if generation % recipe.validate_every == 0 or generation == recipe.steps:
                mean = stopping(generation, search.mean)
                if mean > best_reward:
                    best, best_step, best_reward = search.mean.copy(), generation, mean
            if watch is not None:
                watch(generation, float(np.mean(rewards)))
            since = sum(1 for step, _ in history.stopping if step > best_step)
            if recipe.patience and since >= recipe.patience:
                break
    except BaseException:
        put(start, weights)  # as it was, to begin from again
        raise
    put({**start, **code.weights(best)}, weights)
    plain = results.known(
        "plain", lambda: list(plain_rewards(trainee, score, split.train, recipe).values())
    )
    difficulty = Difficulty.of(dict(zip(split.train, plain, strict=True)))
    return Trained(best_step, best_reward, history.stopping[0][1], history, difficulty)


class _Results:
    """Numbers by name, each computed once and kept in a file."""

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._path = None if folder is None else folder / RESULTS
        self._about = json.loads(json.dumps(about))
        self._values: dict[str, list[float]] = {}
        if self._path is not None and self._path.exists():
            held = json.loads(self._path.read_text(encoding="utf-8"))
            if held["about"] != self._about:
                raise TrainingError(
                    f"The search in {self._path} is of other settings: give this run another name, "
                    "or take the settings back."
                )
            self._values = held["values"]

    def known(self, name: str, compute: Callable[[], list[float]]) -> list[float]:
        """The numbers of `name`."""
        if name not in self._values:
            self._values[name] = compute()
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                held = {"about": self._about, "values": self._values}
                write_atomically(self._path, json.dumps(held).encode())
        return self._values[name]
