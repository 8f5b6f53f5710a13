"""The demo's reward: a small network that looks for what the prompt names, and says how surely.

A convolutional detector reads a picture into a grid of cells (is an object's centre here, which
colour, shape and size has it), a background, a number of objects and a quality. The reward is the
mean log-probability of the prompt's statements plus a quarter of the quality's. It is smooth in the
pixels, so QRM-like training can differentiate it, and learned, so a search can fool it:
`checker.py` is the judge that it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..rewards.protocol import Card
from .prompts import parse
from .scenes import BACKGROUNDS, COLOURS, IMAGE_SIZE, MIN_OFFSET, SHAPES, SIZES, Description, Noun

GRID = 16
"""Cells along each side of the picture; a cell is 4 pixels wide."""
MOST_OBJECTS = 4
_WIDTH = 64
_QUALITY_WEIGHT = 0.25
_FLOOR = -6.0
"""Log-probability below which a statement cannot get more wrong."""


@dataclass(frozen=True)
class Reading:
    """Logits: per cell centre [B, 16, 16], colour [B, 8, …], shape [B, 6, …], size [B, 2, …];

    per picture background [B, 4], count [B, 5] (0…4 objects), quality [B].
    """

    centre: Tensor
    colour: Tensor
    shape: Tensor
    size: Tensor
    background: Tensor
    count: Tensor
    quality: Tensor


class _Residual(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, _WIDTH),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(8, _WIDTH),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Detector(nn.Module):
    """Pictures [B, 3, 64, 64] in 0…1 → `Reading`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, _WIDTH, 3, padding=1, stride=2),
        )
        self.body = nn.Sequential(*(_Residual(dilation) for dilation in (1, 2, 1, 2, 1)))
        self.cells = nn.Conv2d(_WIDTH, 1 + len(COLOURS) + len(SHAPES) + len(SIZES), 1)
        self.picture = nn.Linear(2 * _WIDTH, len(BACKGROUNDS) + MOST_OBJECTS + 1 + 1)

    def forward(self, pictures: Tensor) -> Reading:
        features = F.relu(self.body(self.stem(2 * pictures - 1)))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        cells = self.cells(features).float()
        whole = self.picture(pooled).float()
        centre, colour, shape, size = cells.split([1, len(COLOURS), len(SHAPES), len(SIZES)], 1)
        background, count, quality = whole.split([len(BACKGROUNDS), MOST_OBJECTS + 1, 1], 1)
        return Reading(centre[:, 0], colour, shape, size, background, count, quality[:, 0])


class DemoReward:
    """Higher is better; typically −3 (wrong) to −0.1 (a clean picture of what the prompt says)."""

    name = "demo reward"
    differentiable = True
    card = Card(
        meaning="how surely a 64 x 64 picture shows what a prompt in the demo's words says",
        typical=(-3.0, -0.1),
        licence="Apache-2.0",
        memory=1_600_000,
        size=IMAGE_SIZE,
        bounds=(float("-inf"), 0.0),
    )

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """The detector."""
        return self.detector

    @classmethod
    def load(cls, path: str | Path) -> DemoReward:
        """Read the weights of `calibri-demo-reward.safetensors`."""
        detector = Detector()
        detector.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return cls(detector)

    def to(self, device: torch.device | str) -> DemoReward:
        """Move the network; returns self."""
        self.detector.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rewards [B] of images [B, H, W, 3] in 0…1 for their prompts.

        Pictures of another size are scaled to 64×64. Raises PromptError for a prompt that is not
        in the demo's language, ValueError where there are not as many prompts as images.
        """
        if len(images) != len(prompts):
            raise ValueError(
                f"The demo reward got {len(images)} images and {len(prompts)} prompts; "
                "pass one prompt per image."
            )
        rows_of: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(prompt, []).append(row)
        descriptions = {prompt: parse(prompt) for prompt in rows_of}
        device = self.detector.cells.weight.device
        pictures = images.to(device, torch.float32).permute(0, 3, 1, 2)
        if pictures.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            pictures = F.interpolate(pictures, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
        reading = self.detector(pictures)
        rewards = torch.empty(len(images), device=device)
        for prompt, rows in rows_of.items():
            index = torch.tensor(rows, device=device)
            rewards = rewards.index_put((index,), _reward(reading, index, descriptions[prompt]))
        return rewards


def _reward(reading: Reading, rows: Tensor, description: Description) -> Tensor:
    """Rewards [R] of the pictures in `rows` [R], which share one description."""
    centre = F.logsigmoid(reading.centre[rows])
    peak = centre == F.max_pool2d(centre, 3, stride=1, padding=1)
    colour, shape, size = (
        part[rows].log_softmax(1) for part in (reading.colour, reading.shape, reading.size)
    )
    statements: list[Tensor] = []
    places: list[Tensor] = []
    for noun in description.nouns:
        described = centre + _said(noun, colour, shape, size)
        weight = 1 + (noun.colour is not None) + (noun.size is not None)
        seen = described.masked_fill(~peak, weight * _FLOOR).flatten(1)
        best = seen.topk(noun.count, dim=1).values / weight
        statements += [value for value in best.unbind(1) for _ in range(weight)]
        places.append(_place(described))
    if description.relation is not None:
        statements.append(_relation(description.relation, places[0], places[1]))
    statements.append(reading.count[rows].log_softmax(1)[:, description.objects])
    if description.background is not None:
        index = list(BACKGROUNDS).index(description.background)
        statements.append(reading.background[rows].log_softmax(1)[:, index])
    said = torch.stack(statements).clamp(min=_FLOOR).mean(0)
    return said + _QUALITY_WEIGHT * F.logsigmoid(reading.quality[rows])


def _said(noun: Noun, colour: Tensor, shape: Tensor, size: Tensor) -> Tensor:
    total = shape[:, SHAPES.index(noun.shape)]
    if noun.colour is not None:
        total = total + colour[:, list(COLOURS).index(noun.colour)]
    if noun.size is not None:
        total = total + size[:, list(SIZES).index(noun.size)]
    return total


def _place(described: Tensor) -> Tensor:
    """Expected centre (x, y) in pixels, [R, 2], of what fits the description best."""
    weights = (2 * described).flatten(1).softmax(1).view(-1, GRID, GRID)
    cell = IMAGE_SIZE / GRID
    axis = cell * (torch.arange(GRID, device=described.device) + 0.5)
    return torch.stack([weights.sum(1) @ axis, weights.sum(2) @ axis], dim=1)


def _relation(relation: str, a: Tensor, b: Tensor) -> Tensor:
    """Log-probability that the centres stand so; half at the checker's limit, soft by 2 pixels."""
    axis = 0 if relation in ("left of", "right of") else 1
    apart = a[:, axis] - b[:, axis]
    if relation in ("left of", "above"):
        apart = -apart
    return F.logsigmoid((apart - MIN_OFFSET) / 2)
