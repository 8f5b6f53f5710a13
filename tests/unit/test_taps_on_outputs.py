"""Gains on the whole output of a branch, where a family has no linear layer that makes gates."""

from __future__ import annotations

import torch
from torch import nn

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.taps import GainTaps


def test_the_whole_output_of_a_branch() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6))
    backbone = Backbone("toy", {"block": 1}, (Tap("block", 0, "mlp", "image", "1", 0, 1),))
    x = torch.randn(2, 5, 4)
    plain = model(x)
    with GainTaps(model, backbone).scaled(torch.tensor([[0.0], [3.0]])):
        scaled = model(x)
    assert torch.equal(scaled[0], torch.zeros(5, 6))
    assert torch.equal(scaled[1], 3.0 * plain[1])
