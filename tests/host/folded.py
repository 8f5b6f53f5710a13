"""The official formulas on ComfyUI's diffusion models, by another road than ours.

Coefficients are folded into the weights of a copy, predictions are the bare model's velocities,
summed as the official code does, and integrated by Euler's method here: no taps, no wrappers, none
of ComfyUI's sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from comfy.model_base import BaseModel
from torch import Tensor

from comfyui_calibri.calibri.backbones import Backbone

Predict = Callable[[Tensor, float], Tensor]  # (x, sigma) -> velocity


def folded(model: BaseModel, backbone: Backbone, gains: Sequence[float]) -> torch.nn.Module:
    """A copy of the model's DiT whose adaLN rows, and so its gates, are `gains` times as large."""
    dit = copy.deepcopy(model.diffusion_model)
    for tap, gain in zip(backbone.taps, gains, strict=True):
        linear = dit.get_submodule(tap.module)
        width = linear.out_features // tap.chunks
        rows = slice(tap.chunk * width, (tap.chunk + 1) * width)
        linear.weight[rows] *= gain
        linear.bias[rows] *= gain
    return dit


def velocity(dit: torch.nn.Module, model: BaseModel, context: Tensor, pooled: Tensor) -> Predict:
    """The bare model's prediction for one prompt."""

    def predict(x: Tensor, sigma: float) -> Tensor:
        timestep = model.model_sampling.timestep(torch.full((len(x),), sigma))
        rows = [tensor.expand(len(x), *tensor.shape[1:]) for tensor in (context, pooled)]
        extra = {}
        if hasattr(dit, "double_blocks"):
            extra["guidance"] = torch.full((len(x),), 3.5)
        output: Tensor = dit(x, timestep, rows[0], y=rows[1], **extra)
        return output

    return predict


def euler(predict: Predict, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Integrates dx/dsigma = v."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * predict(x, sigma)
    return x


def per_token_norm(velocity: Tensor) -> Tensor:
    """Qwen-Image's norm of each packed token, a patch of 2 x 2 pixels, at its four pixels."""
    batch, channels, height, width = velocity.shape
    tokens = velocity.reshape(batch, channels, height // 2, 2, width // 2, 2)
    norm = tokens.permute(0, 2, 4, 1, 3, 5).flatten(3).norm(dim=-1)
    return norm[:, None].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
