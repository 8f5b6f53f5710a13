"""The Quality Representation Module: a small transformer beside a DiT that modulates its blocks.

It sees what the DiT sees of a sample, the noise level and the prompt, and never the picture. One
token for the noise level, one for the pooled prompt, K for the prompt's tokens, a learned quality
token and one query per block run through a few pre-norm layers; each block's query then gives the
change M of its slots through heads of low rank, and the quality token a number, the quality that is
to be expected. The heads begin at zero: an untrained module is the plain model, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..calibri.vectors import Vectors
from .config import QRMConfig
from .layout import Slot

FREQUENCIES = 16  # sines and as many cosines
PERIODS = 1000.0  # the fastest sine turns once in 2π/1000 of the noise level's range


@dataclass(frozen=True)
class Adjustment:
    """What a modulator says of B samples: the vectors for its slots, and perhaps a quality [B]."""

    vectors: Vectors
    quality: Tensor | None = None


class Modulator(Protocol):
    """Whatever gives vectors for a DiT's slots: a `QRM`, or a control that stands in for it."""

    def __call__(
        self,
        level: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        pooled: Tensor | None,
    ) -> Adjustment: ...


def level_embedding(level: Tensor) -> Tensor:
    """Sines and cosines of the noise level, [B] in 0..1 → [B, 2 · FREQUENCIES]."""
    angles = level.float()[:, None] * _frequencies(level.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@cache
def _frequencies(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a later gradient may need them
        steps = torch.arange(FREQUENCIES, device=device, dtype=torch.float32) / FREQUENCIES
        frequencies: Tensor = (PERIODS ** (1.0 - steps))[None]
        return frequencies


class Attention(nn.Module):
    """Attention of some tokens on others: [B, N, W], [B, M, W] → [B, N, W]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, M] is true where a token may be seen."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        shown = None if mask is None else mask[:, None, None, :]
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=shown)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


class Resampler(nn.Module):
    """Prompt tokens [B, L, C] → K tokens [B, K, W], which look at them through attention."""

    def __init__(self, tokens: int, width: int, heads: int, compressed: int) -> None:
        super().__init__()
        self.project = nn.Linear(tokens, width)
        self.queries = nn.Parameter(torch.randn(compressed, width) / math.sqrt(width))
        self.attention = Attention(width, heads)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        # Text encoders differ in scale by orders of magnitude, and single channels stick out.
        seen = self.project(F.layer_norm(tokens.float(), tokens.shape[-1:]))
        if mask is not None:
            mask = mask.bool()
            mask = torch.cat([~mask.any(dim=1, keepdim=True), mask], dim=1)
        if mask is not None or tokens.shape[1] == 0:
            # A token of zeros to be seen where there is no other.
            seen = torch.cat([seen.new_zeros(len(seen), 1, seen.shape[-1]), seen], dim=1)
        queries = self.queries.expand(len(seen), -1, -1)
        out: Tensor = queries + self.attention(queries, seen, mask)
        return out


class Layer(nn.Module):
    """A pre-norm transformer layer on [B, N, W]."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Heads(nn.Module):
    """The low-rank heads of S slots of one shape: [B, S, W] → [B, S, chunks, H], at first zero."""

    def __init__(self, slots: list[Slot], width: int, rank: int) -> None:
        super().__init__()
        first = slots[0]
        self.chunks = first.chunks
        self.positions = [chunk.position for chunk in first.changed]
        self.down = nn.Parameter(torch.randn(len(slots), width, rank) / math.sqrt(width))
        self.up = nn.Parameter(torch.zeros(len(slots), len(self.positions), rank, first.width))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.up.requires_grad:
            codes = torch.einsum("bsw,swr->bsr", x, self.down)
            change = torch.einsum("bsr,scrh->bsch", codes, self.up)
        else:
            # The same to the bit without einsum's copy of `up`, most of a QRM's parameters.
            codes = torch.bmm(x.transpose(0, 1), self.down)
            products = torch.matmul(codes[:, None], self.up)  # [S, chunks, B, H]
            change = products.transpose(1, 2).contiguous().transpose(0, 1)
        if len(self.positions) == self.chunks:
            return change
        every = [torch.zeros_like(change[:, :, 0])] * self.chunks
        for position, chunk in zip(self.positions, change.unbind(2), strict=True):
            every[position] = chunk
        return torch.stack(every, dim=2)


class QRM(nn.Module):
    """Noise level and prompt of B samples → the vectors of every slot, and the expected quality."""

    def __init__(self, config: QRMConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.level = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.pooled = nn.Linear(config.pooled, width) if config.pooled else None
        self.prompt = (
            Resampler(config.tokens, width, config.heads, config.compressed)
            if config.tokens
            else None
        )
        slots = config.layout.slots
        blocks = {block: at for at, block in enumerate(_unique((s.kind, s.index) for s in slots))}
        self.quality_token = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.blocks = nn.Parameter(torch.randn(len(blocks), width) / math.sqrt(width))
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.ratio) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.quality = nn.Linear(width, 1)
        # Slots of one shape share a batched product.
        groups: dict[tuple[int, ...], list[Slot]] = {}
        for slot in slots:
            shape = (slot.chunks, slot.width, *(chunk.position for chunk in slot.changed))
            groups.setdefault(shape, []).append(slot)
        self.heads = nn.ModuleList(Heads(group, width, config.rank) for group in groups.values())
        self._paths = [[slot.module for slot in group] for group in groups.values()]
        self._blocks_of = [
            [1 + blocks[slot.kind, slot.index] for slot in group] for group in groups.values()
        ]
        self._indices: dict[torch.device, list[Tensor]] = {}

    def forward(
        self,
        level: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> Adjustment:
        """`level` [B] is the flow time in 0..1, 1 being noise. `tokens` [B, L, C] with `mask`
        [B, L], true (or not 0) where there is a token; `pooled` [B, P]. An input that the
        configuration has no width for is not looked at, one that is None is not seen.

        Raises ValueError for prompts of another width.
        """
        context = [self.level(level_embedding(level).to(self.blocks.dtype))[:, None]]
        if self.pooled is not None and pooled is not None:
            _check_width("pooled embedding", pooled, self.config.pooled)
            normed = F.layer_norm(pooled.float(), pooled.shape[-1:])
            context.append(self.pooled(normed)[:, None])
        if self.prompt is not None and tokens is not None:
            _check_width("tokens", tokens, self.config.tokens)
            context.append(self.prompt(tokens, mask))
        learned = torch.cat([self.quality_token[None], self.blocks]).expand(len(level), -1, -1)
        x = torch.cat([learned, *context], dim=1)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x[:, : learned.shape[1]])
        changes: dict[str, Tensor] = {}
        indices = self._indices_on(x.device)
        for heads, paths, index in zip(self.heads, self._paths, indices, strict=True):
            found = heads(x.index_select(1, index))
            changes.update(zip(paths, found.float().unbind(1), strict=True))
        vectors = Vectors(add=changes) if self.config.mode == "add" else Vectors(scale=changes)
        quality: Tensor = self.quality(x[:, 0])[:, 0].float()
        return Adjustment(vectors, quality)

    def _indices_on(self, device: torch.device) -> list[Tensor]:
        """Where among the learned tokens each group's blocks are; sent to a device once."""
        if device not in self._indices:
            with torch.inference_mode(False):  # a later gradient may need them
                self._indices[device] = [torch.tensor(at, device=device) for at in self._blocks_of]
        return self._indices[device]


def _unique(blocks: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys(blocks))


def _check_width(name: str, prompt: Tensor, width: int) -> None:
    if prompt.shape[-1] != width:
        raise ValueError(
            f"The prompt's {name} are {prompt.shape[-1]} wide but the QRM was made for {width}: "
            "use the text encoders that belong to the QRM's model."
        )
