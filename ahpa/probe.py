"""How much of each level can be read from a block's tokens: linear probes at each noise level.

The projector that a training aligns through is thrown away with it. What is left to measure, on
any model and without it, is whether a *linear* map from a block's tokens gives a level's features.
It is fitted by ridge regression to the tokens of half of the pictures and judged on the other
half's, and the other way round. The measure is the loss's own, the cosine between guess and
features. It rises with the number of pictures, so it compares models and levels on equal pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .levels import Level

FEWEST, TOKENS = 4, 4096
"""Pictures at least; tokens at most, of all pictures together."""
_RIDGE = 0.1
"""Of a token's own kernel value, which is 1 on average. Between 0.01 and 1 the demo model's
cosines, on 64 and on 128 pictures, differ by less than 0.06."""


@dataclass(frozen=True)
class Readout:
    """Cosines [T, L] in −1…1 between probes' guesses and `levels`, at `times` from 0 to 1."""

    block: str  # "double.2"
    levels: tuple[Level, ...]
    times: tuple[float, ...]
    pictures: int
    cosines: NDArray[np.float64]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "block": self.block,
            "pictures": self.pictures,
            "t": [round(t, 5) for t in self.times],
            "cosine": {
                level.module: np.round(values, 5).tolist()
                for level, values in zip(self.levels, self.cosines.T, strict=True)
            },
        }


def probed_times(count: int) -> tuple[float, ...]:
    """The middles of `count` equal bins of 0…1."""
    return tuple((number + 0.5) / count for number in range(count))


def probed_tokens(tokens: int, pictures: int) -> Tensor:
    """Numbers of the tokens of each picture that are looked at, evenly spread."""
    kept = max(1, min(tokens, TOKENS // pictures))
    return torch.arange(kept) * tokens // kept


@torch.no_grad()
def read_out(tokens: Tensor, features: Tensor) -> NDArray[np.float64]:
    """Tokens [P, N, H] of one noise level, whitened levels [P, L, N, D] → cosines [L].

    Raises ValueError for fewer than four pictures.
    """
    check_count(len(tokens))
    odd = torch.arange(len(tokens)) % 2 == 1
    both = [_judged(tokens, features, fitted, ~fitted) for fitted in (odd, ~odd)]
    found: NDArray[np.float64] = torch.stack(both).mean(dim=0).numpy()
    return found


def check_count(pictures: int) -> None:
    """Raise ValueError for too few."""
    if pictures < FEWEST:
        raise ValueError(
            f"There are {pictures} pictures for the alignment, whose probes are fitted to half of "
            f"them: connect at least {FEWEST}, better 32."
        )


def _judged(tokens: Tensor, features: Tensor, fitted: Tensor, judged: Tensor) -> Tensor:
    """Cosines [L] on the pictures `judged` of a probe fitted to `fitted`; both [P], booleans."""
    known = tokens[fitted].flatten(0, 1).double()
    mean, spread = known.mean(dim=0), known.std(dim=0)
    scale = spread.clamp_min(1e-6 * float(spread.max()) or 1.0) * known.shape[-1] ** 0.5
    known = (known - mean) / scale
    asked = (tokens[judged].flatten(0, 1).double() - mean) / scale
    levels = features.double().transpose(1, 2)  # [P, N, L, D]
    wanted = levels[fitted].flatten(0, 1)
    middle = wanted.mean(dim=0)
    # In its dual form: there may be fewer tokens than channels.
    kernel = known @ known.T
    kernel.diagonal().add_(_RIDGE)
    weights = torch.linalg.solve(kernel, (wanted - middle).flatten(1))
    guess = (asked @ (known.T @ weights)).unflatten(1, middle.shape) + middle
    return F.cosine_similarity(guess, levels[judged].flatten(0, 1), dim=-1).mean(dim=0)
