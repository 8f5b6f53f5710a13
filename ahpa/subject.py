"""What is trained, as the trainer sees it: `training.py` knows no host and no family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Latents(Protocol):
    """Latents [P, C, H, W] or [P, C, 1, H, W], as the model sees them: a tensor, or a file's."""

    @property
    def shape(self) -> torch.Size:
        """Of all."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Those of rows [B]."""
        ...


class Subject(Protocol):
    """A model that is trained, with its pictures, as its host calls it."""

    model: nn.Module  # the diffusion model, whose blocks are read
    latents: Latents
    grid: tuple[int, int]  # the picture's tokens, rows and columns
    parameters: Mapping[str, nn.Parameter]  # that are trained: an adapter's or the model's
    device: torch.device

    def velocity(self, x: Tensor, t: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
        """The model's velocity at noised latents x, times t [B] in 0…1 (1 is noise).

        rows [B] are the pictures whose captions it is told; where empty [B] is true, none.
        """
        ...

    def groups(self, rows: Tensor, empty: Tensor) -> Sequence[Tensor]:
        """Positions of those of a batch that may share a call of `velocity`: each once.

        Captions of different lengths may not.
        """
        ...

    def look_up(self) -> None:
        """Called in each step: a point where a host may raise to cancel."""
        ...
