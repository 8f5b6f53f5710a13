"""The timestep embedding of a recorded model, to the last bit of its frequencies.

diffusers embeds a timestep t as sines and cosines of t · exp(-k), with the exponentials in float32.
Where a true exponential lies almost halfway between two floats, the library of one CPU returns the
lower of them and that of another the upper one. t goes to 1000 and a guidance of 3.5 counts as
3500: one such bit has moved the output of a recorded FLUX.1 by 9e-6 of its largest value, nearly
all that a vector may differ by, where everything else that CPUs compute differently moves it by a
tenth of that. A vector's plain output, which no coefficient touches, tells which float it was made
with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# How far from the middle between two floats, in units of their distance, an exponential may lie
# for a library to return the farther one.
DOUBTFUL = 0.08


class RecordedTimesteps(nn.Module):
    """In place of diffusers' Timesteps: the same embedding, from frequencies that can be chosen."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        half: int = original.num_channels // 2
        self._sines_first = not original.flip_sin_to_cos
        self._scale = original.scale
        exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32)
        exponents = exponents / (half - original.downscale_freq_shift)
        exact = exponents.double().exp()
        self.rounded = exact.float()
        # As this machine computes them, and so in the recordings that it makes.
        self.frequencies = exponents.exp()
        up = self.rounded.double() < exact
        self._farther = torch.nextafter(self.rounded, torch.where(up, torch.inf, 0.0))
        gap = (self._farther.double() - self.rounded.double()).abs()
        doubtful = (exact - self.rounded.double()).abs() > (0.5 - DOUBTFUL) * gap
        # The slower half turns too little for its last bit to count.
        self.doubtful = [index for index in range(half // 2) if doubtful[index]]

    def forward(self, timesteps: Tensor) -> Tensor:
        """[B] timesteps -> [B, channels], in float64."""
        # As in diffusers: the products are float32, rounded alike on every machine.
        angles: Tensor = self._scale * (timesteps[:, None].float() * self.frequencies)
        waves = (angles.double().sin(), angles.double().cos())
        return torch.cat(waves if self._sines_first else waves[::-1], dim=-1)

    def turned(self, index: int) -> Tensor:
        """The frequencies with the other one of the two floats that this one may be."""
        turned: Tensor = self.frequencies.clone()
        nearer, farther = self.rounded[index], self._farther[index]
        turned[index] = farther if turned[index] == nearer else nearer
        return turned


def settle_frequencies(model: nn.Module, difference: Callable[[], Tensor], close: float) -> None:
    """Give the model the frequencies with which its plain output is nearest to the recorded one.

    `difference()` is by how much they differ now; nothing is tried while no value of it is larger
    than `close`.
    """
    for timesteps in model.modules():
        if not isinstance(timesteps, RecordedTimesteps):
            continue
        nearest = difference()
        for index in (None, *timesteps.doubtful):
            if nearest.abs().max() <= close:
                return
            before = timesteps.frequencies
            timesteps.frequencies = timesteps.rounded if index is None else timesteps.turned(index)
            now = difference()
            if now.norm() < nearest.norm():
                nearest = now
            else:
                timesteps.frequencies = before
