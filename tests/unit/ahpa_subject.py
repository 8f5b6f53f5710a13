"""A DiT of the demo's shape, tiny, with pictures at random: what trainings of tests train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from comfyui_calibri.ahpa.levels import Level
from comfyui_calibri.ahpa.methods import LEVELS as OF_LEVELS
from comfyui_calibri.ahpa.methods import METHODS, used_levels
from comfyui_calibri.ahpa.recipe import Recipe
from comfyui_calibri.ahpa.router import DynamicRouter
from comfyui_calibri.ahpa.training import Trainer
from comfyui_calibri.demo.model import Flux, FluxConfig

LEVELS = (Level("a", 2), Level("b", 3), Level("c", 3))
PICTURES, WIDTH, TOKENS = 6, 5, 4
STEPS = 3
RECIPE = Recipe(steps=STEPS, batch=4, warm_up=0, width=WIDTH, save_every=2)


class TinySubject:
    """Two double and two single blocks on latents of 4 x 4."""

    grid = (2, 2)
    device = torch.device("cpu")

    def __init__(self, apart: bool = False) -> None:
        torch.manual_seed(0)
        self.apart = apart  # odd and even rows may not share a call
        self.model: nn.Module = Flux(FluxConfig(double_blocks=2, single_blocks=2))
        self.latents = torch.randn(PICTURES, 16, 4, 4)
        self.context, self.pooled = torch.randn(PICTURES, 3, 64), torch.randn(PICTURES, 64)
        self.parameters: Mapping[str, nn.Parameter] = dict(self.model.named_parameters())
        self.seen: list[Tensor] = []

    def velocity(self, x: Tensor, t: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
        self.seen.append(t.clone())
        told = (~empty).float()
        context = self.context[rows] * told[:, None, None]
        out: Tensor = self.model(x, t, context, self.pooled[rows] * told[:, None])
        return out

    def groups(self, rows: Tensor, empty: Tensor) -> Sequence[Tensor]:
        if not self.apart:
            return (torch.arange(len(rows)),)
        return tuple((rows % 2 == odd).nonzero()[:, 0] for odd in (1, 0) if (rows % 2 == odd).any())

    def look_up(self) -> None:
        pass


def features(rows: Tensor) -> Tensor:
    """[B, 3, 4, 5], of the rows alone."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(PICTURES, len(LEVELS), TOKENS, WIDTH, generator=g)[rows]


def trainer(subject: TinySubject, folder: Path | None = None, **changes: object) -> Trainer:
    """A run of RECIPE with changes; what is no target of levels has one level of features."""
    recipe = Recipe(**{**RECIPE.record(), **changes})  # type: ignore[arg-type]
    levels = used_levels(recipe.method, LEVELS)
    one = METHODS[recipe.method].target != OF_LEVELS

    def read(rows: Tensor) -> Tensor:
        return features(rows)[:, :1] if one else features(rows)

    router = DynamicRouter(LEVELS) if METHODS[recipe.method].needs_router else None
    return Trainer(subject, recipe, levels, read, router, folder)
