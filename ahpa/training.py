"""Training a DiT by flow matching while one of its blocks is aligned to features of a VAE.

    x = (1 − t) · picture + t · noise,   the model predicts  noise − picture,
    loss = mean square of what it is off  +  λ · alignment   (`loss.py`)

The data of step n depend on (seed, n) alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.draws import generator, noise
from ..training.loop import Group, History, Loop
from ..training.processes import ALONE, Processes
from ..training.state import StateFile, TrainingError
from ..training.weights import instead, learnt
from .hidden import HiddenReader, chosen_block, read_blocks
from .levels import Level
from .loss import AlignmentLoss, Projector
from .methods import ITSELF, NOTHING, method_of, router_of
from .recipe import LOGIT_NORMAL, Recipe
from .subject import Latents, Subject

Features = Callable[[Tensor], Tensor]
"""Rows [B] of pictures → features of the levels [B, L, N, D]."""

SELF_INTERVAL = 0.2
"""How much less noise, at most, the later block of self-representation alignment sees (SRA)."""
_EDGE = 1e-3  # of the range of t: a velocity at t = 0 is none of the model's


class Batch(NamedTuple):
    """All that is random in a part of a step."""

    rows: Tensor  # [B] pictures
    t: Tensor  # [B]
    noise: Tensor
    empty: Tensor  # [B] whose caption is left out
    earlier: Tensor  # [B] how much less noise SRA's later block sees

    def share(self, processes: Processes) -> Batch:
        """What one of several processes computes of it: every so-many-th, all noise levels."""
        return Batch(*(value[processes.index :: processes.count] for value in self))


@dataclass(frozen=True)
class Trained:
    """What a training came to. The subject's parameters are the averaged ones."""

    history: History
    alignment: AlignmentLoss | None


def draw(recipe: Recipe, latents: Latents, step: int, part: int = 0) -> Batch:
    """The batch of one part of a step, on the CPU, from the seed and these numbers alone."""
    g = generator(recipe.seed, "ahpa", step, part)
    size = recipe.batch
    rows = torch.randint(len(latents), (size,), generator=g)
    # In strata: an even spread of noise levels in each batch.
    quantiles = (torch.arange(size) + torch.rand(size, generator=g)) / size
    t = quantiles
    if recipe.times == LOGIT_NORMAL:
        t = torch.sigmoid(torch.special.ndtri(quantiles.clamp(1e-4, 1 - 1e-4)))
    return Batch(
        rows,
        t.clamp(_EDGE, 1 - _EDGE),
        noise((size, *latents.shape[1:]), g),
        torch.rand(size, generator=g) < recipe.empty_prompts,
        SELF_INTERVAL * torch.rand(size, generator=g),
    )


def mixed(latents: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """(1 − t) · latents + t · noise."""
    share = t.view(-1, *[1] * (latents.ndim - 1))
    return (1 - share) * latents + share * eps


class Trainer:
    """One run: what is trained beside the subject, and the loss of each part of a step.

    `features` are the method's targets, None for those without; `router` one that was trained
    before. `folder` holds the state, and `about` says what else tells this run from others. Several
    processes share each batch, and come to what one would, up to rounding.
    """

    def __init__(
        self,
        subject: Subject,
        recipe: Recipe,
        levels: tuple[Level, ...] = (),
        features: Features | None = None,
        router: nn.Module | None = None,
        folder: Path | None = None,
        about: Mapping[str, Any] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Raises TrainingError and HiddenError for what does not fit, and reads the state."""
        self.subject, self.recipe, self._processes = subject, recipe, processes
        if recipe.batch % processes.count:
            raise TrainingError(
                f"batch is {recipe.batch} for {processes.count} processes, which share it: give a "
                f"multiple of {processes.count}."
            )
        self._features = features
        target = method_of(recipe.method).target
        blocks = read_blocks(subject.model)
        count = subject.grid[0] * subject.grid[1]
        self.reader = HiddenReader(subject.model, chosen_block(blocks, recipe.block), count)
        self._later: HiddenReader | None = None
        if target == ITSELF:
            number = recipe.later_block or round(2 * len(blocks) / 3)
            later = chosen_block(blocks, number)
            if blocks.index(later) <= blocks.index(self.reader.block):
                raise TrainingError(
                    f"later_block is {number} and block is {blocks.index(self.reader.block) + 1}: "
                    "a model is aligned to a block of its own that comes later."
                )
            self._later = HiddenReader(subject.model, later, count)
        self.alignment = self._alignment(target, levels, router)
        told = {**(about or {}), "recipe": recipe.record(), "pictures": len(subject.latents)}
        self.loop = Loop(
            recipe.pace,
            self._groups(),
            StateFile(folder, told),
            subject.device,
            {} if self.alignment is None else {"running": self.alignment.running},
            processes=processes,
        )

    def train(self, watch: Callable[[Trainer], None] = lambda trainer: None) -> Trained:
        """Train to the end, or go on; the subject ends with its averaged weights.

        Raises TrainingError for a loss that is no number, naming the step.
        """
        self.loop.run(self._part, lambda loop: watch(self))
        with torch.no_grad():
            for name, value in self.averaged.items():
                self.subject.parameters[name].copy_(value)
        return Trained(self.loop.history, self.alignment)

    @property
    def averaged(self) -> dict[str, Tensor]:
        """The subject's averaged weights so far, by their names."""
        return self.loop.average_of("model")

    def _groups(self) -> list[Group]:
        recipe, alignment = self.recipe, self.alignment
        model = Group(
            "model",
            self.subject.parameters,
            recipe.rate(recipe.learning_rate).at,
            recipe.weight_decay,
            averaged=True,
        )
        if alignment is None:
            return [model]
        router = learnt(alignment.router)
        projector = dict(alignment.projector.named_parameters())
        return [
            model,
            Group("projector", projector, recipe.rate(recipe.projector_rate).at),
            Group("router", router, recipe.rate(recipe.router_rate).at),
        ]

    def _alignment(
        self, target: str, levels: tuple[Level, ...], router: nn.Module | None
    ) -> AlignmentLoss | None:
        """A new loss with weights from the seed; shapes come from a first look."""
        subject, recipe = self.subject, self.recipe
        if target == NOTHING:
            return None
        batch = draw(recipe, subject.latents, 0).share(self._processes)
        with torch.no_grad():
            hidden = self._call(batch, self.reader)[1].shape[-1]
            found = self._targets(batch, {})
        if found is None:
            raise TrainingError(
                f"The method {recipe.method!r} needs features of the pictures and got none."
            )
        count, tokens, width = found.shape[1:]
        if tokens != subject.grid[0] * subject.grid[1]:
            raise TrainingError(
                f"The features have {tokens} tokens and the model {subject.grid[0]} x "
                f"{subject.grid[1]}: make them again for these pictures."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            loss = AlignmentLoss(
                Projector(hidden, count, width),
                # A copy: it moves with the loss, and the one given is somebody's.
                router_of(recipe.method, levels, hidden, copy.deepcopy(router)),
                recipe.weight_schedule,
                recipe.entropy_schedule,
                self._processes,
            )
        return loss.to(subject.device)

    def _call(self, batch: Batch, reader: HiddenReader | None) -> tuple[Tensor, Tensor]:
        """The model's velocity of a batch and the reader's tokens (empty without one), float32."""
        subject, device = self.subject, self.subject.device
        clean = subject.latents[batch.rows].to(device).float()
        t = batch.t.to(device)
        x = mixed(clean, batch.noise.to(device), t)
        velocities, tokens = [], []
        groups = subject.groups(batch.rows, batch.empty)
        for places in groups:
            rows, empty = batch.rows[places], batch.empty[places]
            with reader or nullcontext(), self._precision():
                out = subject.velocity(x[places], t[places], rows, empty)
            velocities.append(out.float())
            tokens.append(x.new_empty(0) if reader is None else reader.tokens.float())
        order = torch.cat(list(groups)).argsort()
        if reader is None:
            return torch.cat(velocities)[order], tokens[0]
        return torch.cat(velocities)[order], torch.cat(tokens)[order]

    def _precision(self) -> Any:
        if self.recipe.precision != "bfloat16":
            return nullcontext()
        # Without autocast's cache: what it keeps under `no_grad` would carry no gradient.
        return torch.autocast(self.subject.device.type, torch.bfloat16, cache_enabled=False)

    def _targets(self, batch: Batch, averaged: Mapping[str, Tensor]) -> Tensor | None:
        device = self.subject.device
        if self._later is None:
            return None if self._features is None else self._features(batch.rows).to(device)
        # Less noise on the same picture; the averaged model, which is steadier.
        clearer = batch._replace(t=(batch.t - batch.earlier).clamp_min(_EDGE))
        held = instead(self.subject.parameters, averaged) if averaged else nullcontext()
        with torch.no_grad(), held:
            _, later = self._call(clearer, self._later)
        return F.layer_norm(later, later.shape[-1:])[:, None]

    def _part(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        self.subject.look_up()
        batch = draw(self.recipe, self.subject.latents, step, part).share(self._processes)
        alignment = self.alignment
        if alignment is not None and alignment.is_off(step):
            alignment = None
        targets = None if alignment is None else self._targets(batch, self.averaged)
        predicted, hidden = self._call(batch, None if alignment is None else self.reader)
        clean = self.subject.latents[batch.rows].float()
        flow = F.mse_loss(predicted, (batch.noise - clean).to(predicted))
        said = {"flow": float(flow.detach())}
        if alignment is None or targets is None:
            return flow, said
        found = alignment(hidden, targets, batch.t.to(hidden.device), step)
        said |= {
            "alignment": float(found.levels.mean()),
            "entropy": float(found.entropy),
        }
        return flow + found.loss, said


@torch.no_grad()
def validation_loss(subject: Subject, rows: Tensor, seed: int, count: int, batch: int) -> float:
    """Mean flow matching loss on `count` draws from the pictures `rows`, at times spread evenly."""
    total, done = 0.0, 0
    while done < count:
        size = min(batch, count - done)
        g = generator(seed, "ahpa-validation", done)
        chosen = rows[torch.randint(len(rows), (size,), generator=g)]
        t = (done + torch.arange(size) + 0.5) / count
        clean = subject.latents[chosen].float()
        eps = noise(clean.shape, g)
        x = mixed(clean, eps, t).to(subject.device)
        out = subject.velocity(x, t.to(subject.device), chosen, torch.zeros(size, dtype=torch.bool))
        total += float(F.mse_loss(out.float(), (eps - clean).to(out).float())) * size
        done += size
    return total / count
