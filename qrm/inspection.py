"""What a QRM does: how large its changes are, where and when, and how much the prompt decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ..calibri.evaluation import Floats
from .module import QRM


@dataclass(frozen=True)
class Seen:
    """What the module is told of one prompt: tokens [1, L, C], mask [1, L], pooled [1, P]."""

    tokens: Tensor | None
    mask: Tensor | None
    pooled: Tensor | None


@dataclass(frozen=True)
class Inspection:
    """Root mean squares of the vectors over prompts, by what they change.

    `size` maps a name such as "image: attention gate" to [blocks, levels]; `blocks` name the rows
    of each. `between` maps the same names to the share, 0..1, of the vectors' mean square by which
    prompts differ: 0 is a constant for each noise level. `expected` [P] are the quality token's
    words at the first level, in standard deviations over the training's prompts.
    """

    levels: tuple[float, ...]
    blocks: Mapping[str, tuple[str, ...]]
    size: Mapping[str, Floats]
    between: Mapping[str, float]
    overall: float
    expected: Floats

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "levels": list(self.levels),
            "blocks": {name: list(blocks) for name, blocks in self.blocks.items()},
            "size": {name: np.round(values, 6).tolist() for name, values in self.size.items()},
            "between_prompts": {name: round(v, 4) for name, v in self.between.items()},
            "between_prompts_overall": round(self.overall, 4),
            "expected_quality": np.round(self.expected, 4).tolist(),
        }


@torch.no_grad()
def inspect(module: QRM, levels: Sequence[float], prompts: Sequence[Seen]) -> Inspection:
    """Ask the module at every noise level (0..1, 1 being noise) about every prompt.

    Raises ValueError for fewer than two prompts, between which nothing can vary.
    """
    if len(prompts) < 2:
        raise ValueError(
            f"The inspection got {len(prompts)} prompt: give at least two, to see what differs "
            "between them."
        )
    device = next(module.parameters()).device
    sums: dict[tuple[str, str], list[tuple[float, float]]] = {}
    expected = np.zeros(len(prompts))
    for level in levels:
        vectors: dict[str, list[Tensor]] = {}
        for number, seen in enumerate(prompts):
            parts = [None if p is None else p.to(device) for p in _parts(seen)]
            said = module(torch.tensor([level], device=device), *parts)
            if level == levels[0]:
                expected[number] = float(said.quality)
            for path, vector in (said.vectors.add or said.vectors.scale).items():
                vectors.setdefault(path, []).append(vector[0].cpu().double())
        for slot in module.config.layout.slots:
            values = torch.stack(vectors[slot.module])  # [P, chunks, H]
            for chunk in slot.changed:
                one = values[:, chunk.position]
                square = float(one.square().mean())
                varied = float((one - one.mean(0)).square().mean())
                key = (f"{chunk.stream}: {chunk.branch} {chunk.role}", f"{slot.kind}.{slot.index}")
                sums.setdefault(key, []).append((square, varied))  # one for each level
    return _collected(tuple(levels), sums, expected)


def rank_correlation(expected: Floats, reached: Floats) -> float | None:
    """Spearman's between what was expected of each prompt and what it reached; None where either
    does not vary."""
    if len(expected) < 3 or expected.std() == 0 or reached.std() == 0:
        return None
    return float(spearmanr(expected, reached).statistic)


def _parts(seen: Seen) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    return seen.tokens, seen.mask, seen.pooled


def _collected(
    levels: tuple[float, ...],
    sums: Mapping[tuple[str, str], list[tuple[float, float]]],
    expected: Floats,
) -> Inspection:
    blocks: dict[str, list[str]] = {}
    squares: dict[str, list[list[float]]] = {}
    varied: dict[str, float] = {}
    for (name, block), found in sums.items():
        row = [square for square, _ in found]
        blocks.setdefault(name, []).append(block)
        squares.setdefault(name, []).append(row)
        varied[name] = varied.get(name, 0.0) + sum(value for _, value in found)
    whole = {name: float(np.sum(rows)) for name, rows in squares.items()}
    total = sum(whole.values())
    return Inspection(
        levels=levels,
        blocks={name: tuple(rows) for name, rows in blocks.items()},
        size={name: np.sqrt(np.array(rows)) for name, rows in squares.items()},
        between={name: varied[name] / whole[name] if whole[name] else 0.0 for name in squares},
        overall=sum(varied.values()) / total if total else 0.0,
        expected=expected,
    )
