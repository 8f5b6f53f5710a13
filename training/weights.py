"""Weights by name: copies, averages over steps, and averages in the model's place for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def learnt(module: nn.Module) -> dict[str, nn.Parameter]:
    """The module's parameters that training changes, by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own, without gradients."""
    return {name: value.detach().clone() for name, value in weights.items()}


@torch.no_grad()
def put(weights: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Write `weights` into the tensors of these names. KeyError for a name that is not there."""
    for name, value in weights.items():
        into[name].copy_(value)


@torch.no_grad()
def average(kept: Mapping[str, Tensor], weights: Mapping[str, Tensor], keep: float, n: int) -> None:
    """Move `kept` towards `weights` after step `n` (from 1): an exponential moving average.

    Early steps keep less than `keep`, or the average would long be that of random weights.
    """
    share = min(keep, n / (n + 9))
    for name, value in weights.items():
        kept[name].lerp_(value.detach(), 1 - share)


@contextmanager
def instead(
    parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """Run the model with `weights` in its parameters' place; nothing is copied."""
    held = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = held[name]
