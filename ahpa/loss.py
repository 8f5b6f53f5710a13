"""The alignment loss: a block's tokens, projected, against the levels that the router weighs.

    L = λ(step) · ( mean over samples of Σ_l w_l(t) · ℓ_l / m_l  −  η(step) · H(w) )

ℓ_l = 1 − cos(p_l(h), f_l), averaged over tokens: h the block's tokens, p_l a projector (trained),
f_l level l (fixed). m_l is the running mean of ℓ_l over all times. Without it the router would
choose whatever level is easiest to predict, at every t; with it, a level is worth choosing at those
t at which it is more predictable than it is on average. H is the entropy of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.processes import ALONE, Processes
from .router import Router, entropy

_MEAN_KEEP = 0.99
_SMALLEST_MEAN = 1e-3


class Projector(nn.Module):
    """A DiT's tokens [B, N, H] → one guess of each level, [B, L, N, D].

    Three linear layers as in REPA, of which the last has a head for each level.
    """

    def __init__(self, hidden: int, levels: int, width: int, inner: int = 0) -> None:
        super().__init__()
        inner = inner or 2 * hidden
        self.levels, self.width = levels, width
        self.layers = nn.Sequential(
            nn.Linear(hidden, inner),
            nn.SiLU(),
            nn.Linear(inner, inner),
            nn.SiLU(),
            nn.Linear(inner, levels * width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.layers(hidden).unflatten(-1, (self.levels, self.width))
        return out.transpose(1, 2)


@dataclass(frozen=True)
class Schedule:
    """Weight of a term over training: `start`, to 0 at `off` along half a cosine from `hold` on.

    `off` None keeps it. From `off` on the term is not computed.
    """

    start: float
    hold: int = 0
    off: int | None = None

    def at(self, step: int) -> float:
        """The weight at a step."""
        if self.off is None or step < min(self.hold, self.off):
            return self.start
        if step >= self.off:
            return 0.0
        done = (step - self.hold) / (self.off - self.hold)
        return self.start * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Alignment:
    """What one batch gave."""

    loss: Tensor  # a scalar, to be added to the flow's
    levels: Tensor  # ℓ, [B, L], detached
    weights: Tensor  # w, [B, L], detached
    entropy: Tensor  # mean over samples, in nats, detached


class AlignmentLoss(nn.Module):
    """Projector, router and the running means of the levels' losses."""

    running: Tensor

    def __init__(
        self,
        projector: Projector,
        router: nn.Module,
        weight: Schedule = Schedule(0.5),
        entropy_weight: Schedule = Schedule(0.0),
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self._processes = processes
        self.projector = projector
        self.router = router
        self.weight = weight
        self.entropy_weight = entropy_weight
        # Saved with the rest: a run that goes on normalises as one that was not interrupted.
        self.register_buffer("running", torch.zeros(projector.levels))

    def is_off(self, step: int) -> bool:
        """Whether the term is 0 from this step on, so that its features need not be read."""
        off = self.weight.off
        return self.weight.start == 0 or (off is not None and step >= off)

    def forward(self, hidden: Tensor, features: Tensor, times: Tensor, step: int) -> Alignment:
        """Block's tokens [B, N, H], levels [B, L, N, D], times [B] in 0…1 (1 is noise).

        Raises ValueError for levels of another shape than the projector's guess.
        """
        guess = self.projector(hidden).float()
        if guess.shape != features.shape:
            raise ValueError(
                f"The levels have shape {tuple(features.shape)} and the projector's guesses "
                f"{tuple(guess.shape)}: they were made for another model, crop or choice of levels."
            )
        levels = 1 - F.cosine_similarity(guess, features.float(), dim=-1).mean(dim=-1)
        with torch.no_grad():
            mean = self._processes.mean(levels.mean(dim=0))
            if self.training:
                first = self.running == 0
                moved = self.running.lerp(mean, 1 - _MEAN_KEEP)
                self.running.copy_(torch.where(first, mean, moved))
            scale = torch.where(self.running == 0, mean, self.running).clamp_min(_SMALLEST_MEAN)
        router: Router = self.router
        weights = router(times, hidden)
        spread = entropy(weights).mean()
        aligned = (weights * levels / scale).sum(dim=-1).mean()
        loss = self.weight.at(step) * (aligned - self.entropy_weight.at(step) * spread)
        return Alignment(loss, levels.detach(), weights.detach(), spread.detach())
