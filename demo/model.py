"""The demo's DiT: FLUX.1's architecture, small. Names are those of FLUX's own checkpoint.

Image and text tokens run through double-stream blocks with weights of their own, are joined, and
run through single-stream blocks. Every block is modulated by the timestep and the pooled prompt
(adaLN: shift, scale, gate). No guidance embedding, so ComfyUI takes it for a FLUX.1-schnell:
the timestep is sigma itself, in 0…1. Equal to ComfyUI's class (tests/host).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 256
AXES = (16, 56, 56)
THETA = 10_000


@dataclass(frozen=True)
class FluxConfig:
    """Sizes. One head of width 128, because FLUX's rotary axes are fixed at 16 + 56 + 56."""

    hidden: int = 128
    double_blocks: int = 3
    single_blocks: int = 8
    context: int = 64
    pooled: int = 64
    channels: int = 16
    patch: int = 2

    @property
    def heads(self) -> int:
        return self.hidden // sum(AXES)


def timestep_embedding(t: Tensor) -> Tensor:
    """Sines and cosines of t·1000, [B] in 0…1 → [B, 256]."""
    half = FREQUENCIES // 2
    rates = torch.exp(-math.log(THETA) * torch.arange(half, device=t.device) / half)
    angles = (1000.0 * t)[:, None].float() * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [L, 64] of the rotary embedding for positions `ids` [L, 3]."""
    angles = []
    for axis, width in enumerate(AXES):
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angles.append(ids[:, axis, None].double() / THETA**exponents)
    joined = torch.cat(angles, dim=-1)
    return joined.cos().float(), joined.sin().float()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels of x [B, heads, L, 128] by its position's angle."""
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([even * cosines - odd * sines, even * sines + odd * cosines], dim=-1)
    return turned.flatten(-2).type_as(x)


class MLPEmbedder(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(inputs, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float())


class QKNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(width)
        self.key_norm = RMSNorm(width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class SelfAttention(nn.Module):
    """Projections of one stream; the attention itself is over both streams, in the block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, C] → q, k, v, each [B, heads, L, C / heads]."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.norm(q, k, v)
        return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary attention, [B, heads, L, D] → [B, L, heads · D]."""
    out = F.scaled_dot_product_attention(rotate(q, *positions), rotate(k, *positions), v)
    return out.transpose(1, 2).flatten(2)


class Modulation(nn.Module):
    """adaLN: [B, C] → chunks of [B, 1, C]: shift, scale, gate (twice for a double block)."""

    def __init__(self, width: int, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.lin = nn.Linear(width, chunks * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.lin(F.silu(vec))[:, None].chunk(self.chunks, dim=-1)
        return out


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
    )


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class DoubleStreamBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.img_mod = Modulation(width, 6)
        self.img_attn = SelfAttention(width, heads)
        self.img_mlp = _mlp(width)
        self.txt_mod = Modulation(width, 6)
        self.txt_attn = SelfAttention(width, heads)
        self.txt_mlp = _mlp(width)

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, positions: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(vec)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)
        iq, ik, iv = self.img_attn.queries(_norm(img) * (1 + i_scale1) + i_shift1)
        tq, tk, tv = self.txt_attn.queries(_norm(txt) * (1 + t_scale1) + t_shift1)
        joint = [torch.cat(pair, dim=2) for pair in ((tq, iq), (tk, ik), (tv, iv))]
        attention = attend(joint[0], joint[1], joint[2], positions)
        txt_attention, img_attention = attention[:, : txt.shape[1]], attention[:, txt.shape[1] :]
        img = img + i_gate1 * self.img_attn.proj(img_attention)
        img = img + i_gate2 * self.img_mlp(_norm(img) * (1 + i_scale2) + i_shift2)
        txt = txt + t_gate1 * self.txt_attn.proj(txt_attention)
        txt = txt + t_gate2 * self.txt_mlp(_norm(txt) * (1 + t_scale2) + t_shift2)
        return img, txt


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side, from one projection into one projection, one gate."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.modulation = Modulation(width, 3)
        self.linear1 = nn.Linear(width, 7 * width)
        self.linear2 = nn.Linear(5 * width, width)
        self.norm = QKNorm(width // heads)

    def forward(self, x: Tensor, vec: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        joint = self.linear1(_norm(x) * (1 + scale) + shift)
        qkv, mlp = joint.split([3 * self.width, 4 * self.width], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.norm(q, k, v)
        attention = attend(q, k, v, positions)
        fused = self.linear2(torch.cat([attention, F.gelu(mlp, approximate="tanh")], dim=-1))
        out: Tensor = x + gate * fused
        return out


class LastLayer(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(_norm(x) * (1 + scale) + shift)
        return out


class Flux(nn.Module):
    """Predicts the velocity noise − picture of a latent."""

    def __init__(self, config: FluxConfig = FluxConfig()) -> None:
        super().__init__()
        self.config = config
        width, patch = config.hidden, config.channels * config.patch**2
        self.img_in = nn.Linear(patch, width)
        self.time_in = MLPEmbedder(FREQUENCIES, width)
        self.vector_in = MLPEmbedder(config.pooled, width)
        self.txt_in = nn.Linear(config.context, width)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(width, config.heads) for _ in range(config.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(width, config.heads) for _ in range(config.single_blocks)
        )
        self.final_layer = LastLayer(width, patch)

    def start_as_identity(self) -> None:
        """Zero every gate and the output, the usual start of an adaLN transformer (DiT §3.2)."""
        for module in self.modules():
            if isinstance(module, Modulation):
                nn.init.zeros_(module.lin.weight)
                nn.init.zeros_(module.lin.bias)
        for layer in (self.final_layer.linear, self.final_layer.adaLN_modulation[1]):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """Latents [B, C, H, W], sigma [B], prompt tokens [B, L, 64], pooled [B, 64] → like x."""
        patch = self.config.patch
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        img = x.reshape(len(x), -1, rows, patch, columns, patch)
        img = self.img_in(img.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        txt = self.txt_in(context)
        vec = self.time_in(timestep_embedding(timestep).to(x.dtype)) + self.vector_in(y)
        positions = rotary(_positions(context.shape[1], rows, columns, x.device))
        for double in self.double_blocks:
            img, txt = double(img, txt, vec, positions)
        joint = torch.cat([txt, img], dim=1)
        for single in self.single_blocks:
            joint = single(joint, vec, positions)
        out: Tensor = self.final_layer(joint[:, context.shape[1] :], vec)
        out = out.reshape(len(x), rows, columns, -1, patch, patch)
        return out.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def _positions(text_tokens: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Rotary positions [L, 3]: zero for text; (0, row, column) for image patches."""
    ids = torch.zeros(text_tokens + rows * columns, 3, device=device)
    ids[text_tokens:, 1] = torch.arange(rows, device=device).repeat_interleave(columns)
    ids[text_tokens:, 2] = torch.arange(columns, device=device).repeat(rows)
    return ids
