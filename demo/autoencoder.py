"""The demo's autoencoder: TAESD's shape (64 wide, factor 8, 16 channels), trained from scratch.

Module names are those of ComfyUI's `TAESD`, so that the file written from `state_dict()` is one
that the stock VAELoader reads. Latents leave the encoder with unit variance per channel;
`vae_scale` and `vae_shift` undo FLUX's latent format, so that the DiT sees that unit variance too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64
LATENT_CHANNELS = 16
FACTOR = 8
FLUX_SCALE = 0.3611
FLUX_SHIFT = 0.1159
"""ComfyUI's `latent_formats.Flux`: what a DiT sees is (latent − shift)·scale."""


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=bias)


class Clamp(nn.Module):
    """A soft limit at ±3 standard deviations."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three convolutions with a residual connection, [B, C, H, W] → [B, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fuse(self.conv(x) + x)
        return out


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, WIDTH), Block(WIDTH)]
    for _ in range(3):
        layers += [_conv(WIDTH, WIDTH, stride=2, bias=False), *(Block(WIDTH) for _ in range(3))]
    return nn.Sequential(*layers, _conv(WIDTH, LATENT_CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [Clamp(), _conv(LATENT_CHANNELS, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [Block(WIDTH) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, Block(WIDTH), _conv(WIDTH, 3))


class Autoencoder(nn.Module):
    """Pictures [B, 3, 64, 64] in 0…1 ↔ latents [B, 16, 8, 8] of unit variance."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = _encoder()
        self.taesd_decoder = _decoder()
        self.vae_scale = nn.Parameter(torch.tensor(FLUX_SCALE), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(FLUX_SHIFT), requires_grad=False)

    def encode(self, pictures: Tensor) -> Tensor:
        """What the DiT sees: the encoder's output as it is."""
        out: Tensor = self.taesd_encoder(pictures)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in about 0…1, not clipped."""
        out: Tensor = self.taesd_decoder(latents)
        return out


@torch.no_grad()
def fold_normalisation(autoencoder: Autoencoder, norm: nn.BatchNorm2d) -> None:
    """Write the running mean and variance of `norm` into the encoder's last convolution."""
    last = autoencoder.taesd_encoder[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inverse = (norm.running_var + norm.eps).rsqrt()
    last.weight.mul_(inverse[:, None, None, None])
    last.bias.sub_(norm.running_mean).mul_(inverse)
