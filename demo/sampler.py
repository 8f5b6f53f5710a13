"""Sampling the demo model without ComfyUI: the command line's own sampler, in training's units.

ComfyUI's `euler` with its `simple` schedule does the same (tests/host).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .model import Flux

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, 16, 8, 8] and sigma [B] in 0…1 → the velocity, noise − picture, like the latents."""
Encoded = tuple[Tensor, Tensor]
"""Prompt tokens [B, 16, 64] and pooled vectors [B, 64] of the text encoder."""


def guided(
    model: Flux, prompt: Encoded, cfg: float = 1.0, negative: Encoded | None = None
) -> Velocity:
    """The velocity of classifier-free guidance at scale `cfg`; a `negative` may have one row.

    One call of the model a step at cfg 1 or without `negative`, else two.
    """
    context, pooled = prompt

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        towards: Tensor = model(x, sigma, context, pooled)
        if negative is None or cfg == 1.0:
            return towards
        against = model(x, sigma, negative[0].expand_as(context), negative[1].expand_as(pooled))
        both: Tensor = against + cfg * (towards - against)
        return both

    return velocity


@torch.no_grad()
def sample(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Euler steps from sigma 1 to 0, [B, 16, 8, 8] → the same."""
    sigmas = torch.linspace(1.0, 0.0, steps + 1).tolist()
    x = noise
    for sigma, following in pairwise(sigmas):
        now = torch.full((len(x),), sigma, device=x.device)
        x = x + (following - sigma) * velocity(x, now)
    return x
