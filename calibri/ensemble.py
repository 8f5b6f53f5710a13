"""Calibri Ensemble: the weighted sum of several calibrated predictions of one model.

Section 3.4 of the paper (arXiv 2603.24800), in the space of the model's outputs:

    v(x, t, c) = Σ_m w_m v_θ(x, t, c; s_m)

Classifier-free guidance with calibrated members is M = 2, each with a condition of its own:
w_0 v_θ(x, t, c; s_0) + w_1 v_θ(x, t, ∅; s_1), which [g, 1 − g] makes plain guidance at scale g.

A prediction may also come as something that is linear in v: a denoised latent, for example. `base`
is what it is at v = 0, so that weights whose sum is not 1 stay right; for v itself it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

PATCH = 2  # Qwen-Image packs 2 x 2 latent pixels into a token


def combine(base: Tensor, predictions: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The ensemble's prediction [B, ...] from those of its M members.

    `base` has a prediction's shape, `weights` is [B, M] or [1, M]. Where the weights sum to 1
    nothing of the base is left: one member of weight 1 is that member, bit for bit.
    """
    rest = 1.0 - weights.sum(dim=1)
    combined = _per_sample(rest, base) * base
    for prediction, weight in zip(predictions, weights.unbind(dim=1), strict=True):
        combined = combined + _per_sample(weight, prediction) * prediction
    return combined


def combine_guidance(
    base: Tensor, cond: Tensor, uncond: Tensor, weights: Tensor, rescale: bool
) -> Tensor:
    """The guided prediction of a conditional and an unconditional member; `weights` as [B, 2].

    With `rescale` each token keeps its direction and gets the length that it has in `cond`, as
    Qwen-Image guides. Predictions with three axes are tokens [B, L, C]; with four or more they are
    latents [B, C, ..., H, W], whose tokens are patches of 2 x 2.
    """
    combined = combine(base, (cond, uncond), weights)
    if not rescale:
        return combined
    velocity = combined - base
    lengths = _token_lengths(velocity)
    # A token of length 0 has no direction to keep: it stays 0.
    ratio = torch.where(lengths > 0, _token_lengths(cond - base) / lengths, 0.0)
    return base + velocity * ratio.to(velocity.dtype)


def _per_sample(weight: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...] with as many axes as `like`."""
    return weight.reshape(-1, *(1,) * (like.ndim - 1))


def _token_lengths(velocity: Tensor) -> Tensor:
    """Each token's length, in float32, broadcastable to `velocity`."""
    lengths: Tensor
    if velocity.ndim == 3:
        lengths = torch.linalg.vector_norm(velocity.float(), dim=-1, keepdim=True)
        return lengths
    energy = velocity.float().square().sum(dim=1, keepdim=True)
    height, width = energy.shape[-2:]
    # A patch that the edge cuts has fewer pixels; the rest of it is padding of zeros.
    pixels = functional.pad(energy, (0, width % PATCH, 0, height % PATCH))
    patches = pixels.unflatten(-2, (-1, PATCH)).unflatten(-1, (-1, PATCH)).sum(dim=(-3, -1))
    lengths = patches.sqrt().repeat_interleave(PATCH, dim=-2).repeat_interleave(PATCH, dim=-1)
    return lengths[..., :height, :width]
