"""Sampling the demo model without ComfyUI, for training and for choosing a checkpoint.

ComfyUI's `euler` with its `simple` schedule does the same (tests/host).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .model import Flux


@torch.no_grad()
def sample(
    model: Flux,
    noise: Tensor,
    context: Tensor,
    pooled: Tensor,
    steps: int,
    cfg: float = 1.0,
    negative: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Euler steps from sigma 1 to 0, [B, 16, 8, 8] → the same; `negative` is a cfg's other half."""
    sigmas = torch.linspace(1.0, 0.0, steps + 1).tolist()
    x = noise
    for sigma, following in pairwise(sigmas):
        t = torch.full((len(x),), sigma, device=x.device)
        velocity = model(x, t, context, pooled)
        if negative is not None and cfg != 1.0:
            against = model(x, t, negative[0].expand_as(context), negative[1].expand_as(pooled))
            velocity = against + cfg * (velocity - against)
        x = x + (following - sigma) * velocity
    return x
