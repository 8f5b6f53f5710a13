"""The demo's scenes at 128 pixels, and an autoencoder whose stages differ, for AHPA's comparison.

At 64 pixels the demo has 16 tokens, and its own autoencoder the same width at every stage: there
would be little to choose among.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..demo.prompts import is_held_out, to_text
from ..demo.render import render
from ..demo.scenes import Description, Scene, sample_pairs
from ..demo.training import Recipe, train

SIDE, FACTOR, CHANNELS = 128, 8, 8
WIDTHS = (16, 32, 64, 64)
_LATENT_NOISE = 0.05


@dataclass(frozen=True)
class Pictures:
    """Scenes [N, 3, 128, 128] in bytes, their prompts, and what these say."""

    pixels: Tensor
    prompts: tuple[str, ...]
    descriptions: tuple[Description, ...]

    def batch(self, rows: Sequence[int] | Tensor) -> Tensor:
        """Pictures in 0…1."""
        return self.pixels[rows].float() / 255


def draw_pictures(count: int, seed: int, held_out: bool) -> Pictures:
    """Tidy scenes: of prompts that are held out, or of none of them."""
    pixels, prompts, said = [], [], []
    for description, scene in sample_pairs(seed, arranged=True):
        text = to_text(description)
        if is_held_out(text) != held_out:
            continue
        pixels.append(torch.from_numpy(render_large(scene)).permute(2, 0, 1))
        prompts.append(text)
        said.append(description)
        if len(prompts) == count:
            break
    return Pictures(torch.stack(pixels), tuple(prompts), tuple(said))


def render_large(scene: Scene) -> NDArray[np.uint8]:
    """A scene at twice the demo's resolution, [128, 128, 3]: four pictures, half a pixel apart."""
    picture = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    for row, down in enumerate((0.25, -0.25)):
        for column, right in enumerate((0.25, -0.25)):
            things = tuple(replace(t, x=t.x + right, y=t.y + down) for t in scene.things)
            picture[row::2, column::2] = render(replace(scene, things=things))
    return picture


class Residual(nn.Module):
    """Two convolutions after group norms, as in AutoencoderKL's ResnetBlock."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        h = self.conv2(nn.functional.silu(self.norm2(h)))
        out: Tensor = self.nin_shortcut(x) + h
        return out


def _stage(inputs: int, width: int, last: bool) -> nn.Module:
    parts = {"block": nn.ModuleList([Residual(inputs, width), Residual(width, width)])}
    stage = nn.ModuleDict(parts)
    if not last:
        stage["downsample"] = nn.Conv2d(width, width, 3, stride=2, padding=1)
    return stage


class Encoder(nn.Module):
    """The names and shape of AutoencoderKL's: four stages, each half as large and twice as wide."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (WIDTHS[0], *WIDTHS)
        last = len(WIDTHS) - 1
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(_stage(inputs[i], WIDTHS[i], i == last) for i in range(last + 1))
        wide = WIDTHS[-1]
        self.mid = nn.ModuleDict({"block_1": Residual(wide, wide), "block_2": Residual(wide, wide)})
        self.norm_out, self.conv_out = (
            nn.GroupNorm(8, wide),
            nn.Conv2d(wide, CHANNELS, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.down:
            assert isinstance(stage, nn.ModuleDict)
            blocks = stage["block"]
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
            if "downsample" in stage:
                x = stage["downsample"](x)
        x = self.mid["block_2"](self.mid["block_1"](x))
        out: Tensor = self.conv_out(nn.functional.silu(self.norm_out(x)))
        return out


class Autoencoder(nn.Module):
    """Pictures [B, 3, 128, 128] in 0…1 ↔ latents [B, 8, 16, 16] of about unit variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.scale = nn.BatchNorm2d(CHANNELS, affine=False, momentum=0.02)
        widths = WIDTHS[::-1]
        layers: list[nn.Module] = [nn.Conv2d(CHANNELS, widths[0], 3, padding=1)]
        for inputs, outputs in zip(widths, (*widths[1:], widths[-1]), strict=True):
            layers += [Residual(inputs, outputs), nn.Upsample(scale_factor=2)]
        self.decoder = nn.Sequential(*layers[:-1], nn.Conv2d(widths[-1], 3, 3, padding=1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents as the DiT sees them."""
        out: Tensor = self.scale(self.encoder(2 * pictures - 1))
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, not clipped."""
        out: Tensor = self.decoder(latents)
        return out


def train_autoencoder(pictures: Pictures, steps: int, batch: int, folder: Path) -> Autoencoder:
    """Train it, or finish that, on batches that belong to their step."""
    torch.manual_seed(0)
    model = Autoencoder()
    recipe = Recipe(steps=steps, batch=batch, learning_rate=1e-3, warm_up=min(100, steps))

    def loss(step: int) -> Tensor:
        g = torch.Generator().manual_seed(step)
        seen = pictures.batch(torch.randint(len(pictures.prompts), (batch,), generator=g))
        latents = model.encode(seen)
        noise = torch.randn(latents.shape, generator=g)
        found = model.decode(latents + _LATENT_NOISE * noise)
        return (found - seen).abs().mean() + (found - seen).square().mean()

    train("autoencoder", model, loss, recipe, folder, save_every=100)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encoded(autoencoder: Autoencoder, pictures: Pictures) -> Tensor:
    """Latents [N, 8, 16, 16] of all pictures."""
    count = len(pictures.prompts)
    return torch.cat(
        [
            autoencoder.encode(pictures.batch(range(i, min(count, i + 16))))
            for i in range(0, count, 16)
        ]
    )
