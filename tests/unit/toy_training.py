"""A model of two numbers that a module can be trained on in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.vectors import Vectors
from comfyui_calibri.qrm.module import Adjustment
from comfyui_calibri.qrm.recipe import LossWeights, Recipe
from comfyui_calibri.qrm.training import Split

PROMPTS = tuple(f"prompt {number}" for number in range(8))
SPLIT = Split((0, 1, 2, 3, 4), (5, 6, 7))
RECIPE = Recipe(
    steps=12,
    batch=3,
    learning_rate=0.05,
    warm_up=0,
    ema=0.5,
    validate_every=4,
    save_every=3,
    patience=0,
    precision="float32",
    losses=LossWeights(flow=0.0, late=1.0, last=1.0, difficulty=0.1, size=0.01),
)
WANTED = 0.8


class ToyModule(nn.Module):
    """Prompt and level → a vector [B, 1, 2], at first zero, and an expectation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(3, 4)
        self.up = nn.Parameter(torch.zeros(4, 2))
        self.quality = nn.Linear(4, 1)

    def forward(
        self,
        level: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> Adjustment:
        assert pooled is not None
        hidden = torch.tanh(self.inner(torch.cat([level[:, None], pooled], dim=1)))
        return Adjustment(
            Vectors(add={"m": (hidden @ self.up)[:, None]}), self.quality(hidden)[:, 0]
        )


class ToyTrainee:
    """Its latents are two numbers, its pictures their sigmoids; the vector shifts its guess."""

    def __init__(self, steps: int = 3) -> None:
        self.prompts = PROMPTS
        self.sigmas = tuple(1 - step / steps for step in range(steps + 1))
        self.shape = (2,)
        self.device = torch.device("cpu")
        self.conditions = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
        self.seen: list[tuple[int, ...]] = []

    def denoised(
        self, x: Tensor, sigma: Tensor, rows: Sequence[int], module: nn.Module | None
    ) -> SimpleNamespace:
        self.seen.append(tuple(rows))
        pooled = self.conditions[list(rows)]
        said = None if module is None else module(sigma, None, None, pooled)
        x0 = 0.1 * x + pooled
        if said is None:
            return SimpleNamespace(x0=x0, vectors=None, quality=None)
        x0 = x0 + said.vectors.add["m"][:, 0]
        return SimpleNamespace(x0=x0, vectors=said.vectors, quality=said.quality)

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return (1 - sigma[:, None]) * latents + sigma[:, None] * noise

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents)[:, None, :, None].expand(-1, 1, 2, 3)

    def look_up(self) -> None:
        pass


def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Highest, 0, where every number of a picture is `WANTED`."""
    assert len(images) == len(prompts)
    return -(images - WANTED).square().mean(dim=(1, 2, 3))
