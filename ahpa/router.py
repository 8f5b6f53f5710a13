"""Which level of the VAE a noise level aligns to: AHPA's Dynamic Router, and its rivals.

A router turns times [B] (1 is noise, 0 the picture) into weights [B, L] over levels, non-negative
and of sum 1: w = β(group) · α(level in its group). It is trained with the DiT and thrown away with
the projector; a sampler never sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .levels import DEEP, Level

WIDTH = 128
BINS = 10
_FREQUENCIES = 64
_LEAST = 1e-12


class Router(Protocol):
    """Weights of levels at times."""

    def __call__(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Times [B] in 0…1, the aligned block's tokens [B, N, H] → weights [B, L] of sum 1."""
        ...


class Hierarchy(nn.Module):
    """Scores [B, G + L] → weights [B, L]: softmax over groups, and over levels in each group."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        groups = list(dict.fromkeys(level.group for level in levels))
        self.groups = tuple(groups)
        self.sizes = [sum(level.group == group for level in levels) for group in groups]
        if [level.group for level in levels] != [
            group for group, size in zip(groups, self.sizes, strict=True) for _ in range(size)
        ]:
            raise ValueError("Levels of one group must follow each other, as read_levels has them.")

    @property
    def scores(self) -> int:
        """How many scores it takes."""
        return len(self.groups) + sum(self.sizes)

    def parts(self, scores: Tensor) -> tuple[Tensor, list[Tensor]]:
        """β [B, G], and for each group its α [B, levels of the group]; each of sum 1."""
        beta, *alphas = scores.split([len(self.groups), *self.sizes], dim=-1)
        return beta.softmax(dim=-1), [alpha.softmax(dim=-1) for alpha in alphas]

    def forward(self, scores: Tensor) -> Tensor:
        beta, alphas = self.parts(scores)
        return torch.cat([beta[:, g, None] * alpha for g, alpha in enumerate(alphas)], dim=-1)


class LinearTime(nn.Module):
    """e = W·t + b, [B] → [B, D]: the paper's encoding, whose slope is the same everywhere."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.linear = nn.Linear(1, width)
        self.width = width

    def forward(self, times: Tensor) -> Tensor:
        out: Tensor = self.linear(times[:, None])
        return out


class SinusoidalTime(nn.Module):
    """Sines and cosines of t in octaves, for the ablation of the encoding: [B] → [B, 2 · F]."""

    def __init__(self, width: int = 2 * _FREQUENCIES) -> None:
        super().__init__()
        self.width = width

    def forward(self, times: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(math.log(1000.0) * torch.arange(half, device=times.device) / half)
        angles = times[:, None].float() * rates
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class DynamicRouter(nn.Module):
    """The paper's: an encoding of t, an MLP of `depth` layers, α and β.

    It begins with equal weights at every t, because its last layer begins at 0.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        encoding: LinearTime | SinusoidalTime | None = None,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.encoding = encoding or LinearTime()
        self.hierarchy = Hierarchy(levels)
        self.mlp = _mlp(self.encoding.width, self.hierarchy.scores, depth)

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        out: Tensor = self.hierarchy(self.mlp(self.encoding(times)))
        return out


class ContentRouter(nn.Module):
    """Ablation: it sees the mean of the aligned block's tokens beside t."""

    def __init__(self, levels: Sequence[Level], hidden: int, depth: int = 4) -> None:
        super().__init__()
        self.encoding = LinearTime()
        self.content = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, WIDTH))
        self.hierarchy = Hierarchy(levels)
        self.mlp = _mlp(2 * WIDTH, self.hierarchy.scores, depth)

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        if hidden is None:
            raise ValueError("The content-adaptive router needs the aligned block's tokens.")
        # Not a path for gradients into the DiT: it is to be read, not to be made readable.
        content = self.content(hidden.detach().float().mean(dim=1))
        out: Tensor = self.hierarchy(self.mlp(torch.cat([self.encoding(times), content], dim=-1)))
        return out


class LookupRouter(nn.Module):
    """Ablation: a table of 10 bins of t, without anything between them."""

    def __init__(self, levels: Sequence[Level], bins: int = BINS) -> None:
        super().__init__()
        self.hierarchy = Hierarchy(levels)
        self.table = nn.Parameter(torch.zeros(bins, self.hierarchy.scores))

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        bins = (times * len(self.table)).long().clamp(0, len(self.table) - 1)
        out: Tensor = self.hierarchy(self.table[bins])
        return out


class StaticRouter(nn.Module):
    """Baseline: one learned mix for all t."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.hierarchy = Hierarchy(levels)
        self.scores = nn.Parameter(torch.zeros(self.hierarchy.scores))

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        out: Tensor = self.hierarchy(self.scores.expand(len(times), -1))
        return out


class FixedRouter(nn.Module):
    """Baseline: one mix that is given, weights [L] of sum 1; a single level or all alike."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        weights: Tensor = self.get_buffer("weights")
        return weights.to(times).expand(len(times), -1)


class HandSetRouter(nn.Module):
    """Baseline: β(t) by hand. The deep group's share is t, the others share the rest alike."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        deep = torch.tensor([float(level.group == DEEP) for level in levels])
        if not 0 < deep.sum() < len(deep):
            raise ValueError("A hand-set schedule needs levels of the deep group and of another.")
        self.register_buffer("deep", deep / deep.sum())
        self.register_buffer("rest", (1 - deep) / (1 - deep).sum())

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        share = times[:, None].float()
        deep, rest = self.get_buffer("deep"), self.get_buffer("rest")
        out: Tensor = share * deep.to(share) + (1 - share) * rest.to(share)
        return out


class ReversedRouter(nn.Module):
    """Control: a trained router with time turned round, and not trained any more."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = frozen(router)

    def forward(self, times: Tensor, hidden: Tensor | None = None) -> Tensor:
        out: Tensor = self.router(1 - times, hidden)
        return out


def frozen(router: nn.Module) -> nn.Module:
    """The router itself, not trained any more: the control "a router of another seed"."""
    return router.requires_grad_(False).eval()


def entropy(weights: Tensor) -> Tensor:
    """Of weights [..., L], in nats: 0 for one level, log L for all alike. [...]"""
    # At exactly 0 its slope is infinite, and infinity times the softmax's 0 is not a number.
    out: Tensor = torch.special.entr(weights.clamp_min(_LEAST)).sum(dim=-1)
    return out


def _mlp(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """`depth` linear layers; the last begins at 0."""
    if depth < 2:
        raise ValueError(f"The router's MLP has at least 2 layers, not {depth}.")
    layers: list[nn.Module] = []
    for number in range(depth - 1):
        layers += [nn.Linear(inputs if number == 0 else WIDTH, WIDTH), nn.SiLU()]
    last = nn.Linear(WIDTH, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
