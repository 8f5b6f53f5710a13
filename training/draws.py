"""Random numbers that belong to a step of a run, whatever ran before and whoever asks first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, *names: str | int) -> torch.Generator:
    """On the CPU, begun from the seed and the names alone."""
    told = "\0".join(str(name) for name in (seed, *names)).encode()
    number = int.from_bytes(hashlib.sha256(told).digest()[:7], "big")
    return torch.Generator().manual_seed(number)


def noise(shape: Sequence[int], g: torch.Generator) -> Tensor:
    """Standard normal noise of this shape, float32 on the CPU."""
    return torch.randn(tuple(shape), generator=g)
