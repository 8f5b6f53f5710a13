"""Gains for a model's taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Backbone, Tap, read_backbone
from comfyui_calibri.calibri.taps import GainTaps


def make_taps(model: nn.Module) -> GainTaps:
    return GainTaps(model, read_backbone(model))


def gain_on(backbone: Backbone, tap: Tap, gain: float) -> Tensor:
    """[1, T]: `gain` on one tap, 1 on the others."""
    gains = torch.ones(1, len(backbone.taps))
    gains[0, backbone.taps.index(tap)] = gain
    return gains


def random_gains(model: nn.Module, samples: int, seed: int = 2) -> Tensor:
    """[samples, T], uniform in the paper's bounds."""
    generator = torch.Generator().manual_seed(seed)
    taps = len(read_backbone(model).taps)
    return torch.empty(samples, taps).uniform_(-1.0, 2.0, generator=generator)
