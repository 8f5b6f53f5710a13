"""A SiT-shaped transformer: what AHPA's paper trains, from nothing.

Patches of a latent with fixed sine positions run through blocks of attention and MLP, each
modulated by time and condition (adaLN-zero). The condition is a class, or a pooled text vector.
It predicts noise − picture, at times from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FREQUENCIES = 256


@dataclass(frozen=True)
class SiTConfig:
    """Sizes. Of `classes` and `pooled` one is above 0; class number `classes` means none."""

    hidden: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 2
    channels: int = 4
    side: int = 32  # of the latent
    classes: int = 1000
    pooled: int = 0

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.side % self.patch or self.hidden % 4:
            raise ValueError(
                f"A hidden width of {self.hidden} for {self.heads} heads and a side of {self.side} "
                f"for patches of {self.patch} do not divide: choose multiples."
            )
        if (self.classes > 0) == (self.pooled > 0):
            raise ValueError("A SiT is told a class or a pooled text: set one of the two.")


SIZES: Mapping[str, SiTConfig] = {
    "B/2": SiTConfig(),
    "L/2": SiTConfig(hidden=1024, depth=24, heads=16),
    "XL/2": SiTConfig(hidden=1152, depth=28, heads=16),
}


class TimestepEmbedder(nn.Module):
    """Times [B] in 0…1 → [B, H]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(_FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, t: Tensor) -> Tensor:
        half = _FREQUENCIES // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
        angles = t[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out


class Attention(nn.Module):
    """Over all tokens, [B, N, H] → the same."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Four times as wide inside."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class SiTBlock(nn.Module):
    """Tokens [B, N, H] and the condition [B, H] → tokens."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(hidden, heads), Mlp(hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(
            6, dim=-1
        )
        x = x + gate1 * self.attn(_norm(x) * (1 + scale1) + shift1)
        out: Tensor = x + gate2 * self.mlp(_norm(x) * (1 + scale2) + shift2)
        return out


class FinalLayer(nn.Module):
    """Tokens → patches."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(_norm(x) * (1 + scale) + shift)
        return out


class SiT(nn.Module):
    """It begins as nothing: all gates and the output are 0 (adaLN-zero)."""

    pos_embed: Tensor

    def __init__(self, config: SiTConfig = SIZES["B/2"]) -> None:
        super().__init__()
        self.config, self.patch_size = config, config.patch
        hidden = config.hidden
        self.x_embedder = nn.ModuleDict(
            {"proj": nn.Conv2d(config.channels, hidden, config.patch, stride=config.patch)}
        )
        self.t_embedder = TimestepEmbedder(hidden)
        if config.classes:
            self.y_embedder: nn.Module = nn.Embedding(config.classes + 1, hidden)
        else:
            self.y_embedder = nn.Linear(config.pooled, hidden)
        cells = config.side // config.patch
        self.register_buffer("pos_embed", _positions(cells, hidden), persistent=False)
        self.blocks = nn.ModuleList(SiTBlock(hidden, config.heads) for _ in range(config.depth))
        self.final_layer = FinalLayer(hidden, config.channels * config.patch**2)
        self._begin()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents [B, C, S, S], times [B], classes [B] or pooled texts [B, P] → velocities."""
        config = self.config
        tokens = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        condition = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        out = self.final_layer(tokens, condition)
        cells = config.side // config.patch
        out = out.reshape(len(x), cells, cells, config.patch, config.patch, config.channels)
        found: Tensor = out.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
        return found

    def _begin(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (*self.t_embedder.mlp, self.y_embedder):
            if isinstance(layer, (nn.Linear, nn.Embedding)):
                nn.init.normal_(layer.weight, std=0.02)
        zero = [block.get_submodule("adaLN_modulation.1") for block in self.blocks]
        for layer in (*zero, self.final_layer.adaLN_modulation[1], self.final_layer.linear):
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _positions(cells: int, width: int) -> Tensor:
    """Sines and cosines of column and row, [1, cells², width]."""
    quarter = width // 4
    rates = 1 / 10_000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(cells, dtype=torch.float64)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    columns = waves[None].expand(cells, cells, -1)
    rows = waves[:, None].expand(cells, cells, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()[None]
