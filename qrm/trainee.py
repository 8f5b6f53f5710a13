"""What training asks of a host: a frozen model that takes vectors, its prompts and its decoder.

ComfyUI's models stand behind `nodes/trainable.py`, the demo model behind `demo/trainee.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..calibri.vectors import Vectors

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""Pictures [B, H, W, 3] in 0..1 and their prompts → rewards [B]."""


class Denoised(Protocol):
    """The model's guess `x0`, like the latents it was given, and what the module said on the way.

    `vectors` are the conditional ones; `quality` [B] is what the module expects. Both are None
    where no module acts.
    """

    @property
    def x0(self) -> Tensor: ...

    @property
    def vectors(self) -> Vectors | None: ...

    @property
    def quality(self) -> Tensor | None: ...


class Trainee(Protocol):
    """`prompts` are indexed by `rows`; `sigmas` [S + 1] fall to 0; `shape` is one latent's."""

    prompts: tuple[str, ...]
    sigmas: tuple[float, ...]
    shape: tuple[int, ...]
    device: torch.device

    def denoised(
        self, x: Tensor, sigma: Tensor, rows: Sequence[int], module: nn.Module | None
    ) -> Denoised:
        """Call the model on latents `x` [B, ...] at `sigma` [B]; without `module` it is plain.

        Gradients flow to the module's parameters and to `x` where they are asked for.
        """
        ...

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Latents at noise level `sigma` [B], as the model's schedule mixes them."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, H, W, 3] in 0..1; gradients flow."""
        ...

    def look_up(self) -> None:
        """Called between calls of the model: a point where a host may raise to cancel."""
        ...


def levels(sigma: float, x: Tensor) -> Tensor:
    """One noise level for each row of `x`."""
    return torch.full((len(x),), sigma, device=x.device)


def initial_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Noise [B, *shape] of its own for each seed, as ComfyUI draws it."""
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows)


def sample(
    trainee: Trainee,
    module: nn.Module | None,
    rows: Sequence[int],
    seeds: Sequence[int],
    until: int | None = None,
) -> Tensor:
    """Euler steps from pure noise through the schedule, or through its first `until` steps.

    Returns latents [B, ...]. Under `no_grad` unless the caller asks for more with `onward`.
    """
    with torch.no_grad():
        noise = initial_noise(trainee.shape, seeds).to(trainee.device)
        start = levels(trainee.sigmas[0], noise)
        x = trainee.noised(torch.zeros_like(noise), noise, start)
        steps = len(trainee.sigmas) - 1 if until is None else until
        for step in range(steps):
            x, _ = onward(trainee, module, x, rows, step)
    return x


def onward(
    trainee: Trainee, module: nn.Module | None, x: Tensor, rows: Sequence[int], step: int
) -> tuple[Tensor, Denoised]:
    """One Euler step of the schedule, and what the model said in it."""
    trainee.look_up()
    sigma, following = trainee.sigmas[step], trainee.sigmas[step + 1]
    found = trainee.denoised(x, levels(sigma, x), rows, module)
    return x + (following - sigma) / sigma * (x - found.x0), found
