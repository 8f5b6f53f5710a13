"""What stands in for a QRM to ask whether it is the prompt, or just more numbers, that helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..calibri.vectors import Vectors
from ..demo.trainee import DemoTrainee, Found
from ..qrm.config import QRMConfig
from ..qrm.layout import Slot
from ..qrm.module import FREQUENCIES, QRM, Adjustment, Heads, level_embedding


class Constants(nn.Module):
    """Free vectors of full rank, the same for every prompt and noise level."""

    def __init__(self, config: QRMConfig) -> None:
        super().__init__()
        self.paths = [slot.module for slot in config.layout.slots]
        self.vectors = nn.ParameterList(
            torch.zeros(1, slot.chunks, slot.width) for slot in config.layout.slots
        )

    def forward(self, level: Tensor, *prompt: Tensor | None) -> Adjustment:
        return Adjustment(Vectors(add=dict(zip(self.paths, self.vectors, strict=True))))


class TimestepOnly(nn.Module):
    """An MLP on the noise level with a QRM's heads, as large as the QRM of `config`."""

    def __init__(self, config: QRMConfig, size: int) -> None:
        super().__init__()
        groups: dict[int, list[Slot]] = {}
        for slot in config.layout.slots:
            groups.setdefault(slot.chunks, []).append(slot)
        self.paths = [[slot.module for slot in group] for group in groups.values()]
        self.heads = nn.ModuleList(
            Heads(group, config.rank, config.rank) for group in groups.values()
        )
        outputs = config.rank * sum(len(group) for group in groups.values())
        own = sum(p.numel() for p in self.heads.parameters())
        hidden = max(1, (size - own - outputs) // (2 * FREQUENCIES + 1 + outputs))
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
        )
        self.rank = config.rank

    def forward(self, level: Tensor, *prompt: Tensor | None) -> Adjustment:
        codes = self.mlp(level_embedding(level)).unflatten(-1, (-1, self.rank))
        parts = codes.split([len(paths) for paths in self.paths], dim=1)
        changes: dict[str, Tensor] = {}
        for heads, paths, part in zip(self.heads, self.paths, parts, strict=True):
            changes.update(zip(paths, heads(part).float().unbind(1), strict=True))
        return Adjustment(Vectors(add=changes))


class PromptOnly(QRM):
    """A QRM that is told the same noise level at every step."""

    def forward(
        self,
        level: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> Adjustment:
        return super().forward(torch.full_like(level, 0.5), tokens, mask, pooled)


class Shuffled(nn.Module):
    """A trained QRM that gets the prompt of another row, `by` rows on."""

    def __init__(self, module: nn.Module, by: int) -> None:
        super().__init__()
        self.module, self.by = module, by

    def forward(
        self,
        level: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> Adjustment:
        other = [None if p is None else p.roll(self.by, 0) for p in (tokens, mask, pooled)]
        found: Adjustment = self.module(level, *other)
        return found


class Lora(nn.Module):
    """Rank 1 on every linear of the DiT's blocks: as many numbers as the demo's QRM (36,096)."""

    def __init__(self, dit: nn.Module) -> None:
        super().__init__()
        self._linears = [
            module
            for name, module in dit.named_modules()
            if isinstance(module, nn.Linear) and "_blocks." in name
        ]
        self.down = nn.ParameterList(
            torch.randn(1, linear.in_features) / linear.in_features**0.5 for linear in self._linears
        )
        self.up = nn.ParameterList(torch.zeros(linear.out_features, 1) for linear in self._linears)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it the DiT's linears have the low-rank change."""
        for linear, down, up in zip(self._linears, self.down, self.up, strict=True):
            linear.__dict__["forward"] = partial(_changed, linear, down, up)
        try:
            yield
        finally:
            for linear in self._linears:
                del linear.__dict__["forward"]


def _changed(linear: nn.Linear, down: Tensor, up: Tensor, x: Tensor) -> Tensor:
    out: Tensor = nn.functional.linear(x, linear.weight, linear.bias)
    return out + nn.functional.linear(nn.functional.linear(x, down), up)


class LoraTrainee(DemoTrainee):
    """The demo with a `Lora` in the place of a QRM."""

    def denoised(
        self, x: Tensor, sigma: Tensor, rows: Sequence[int], module: nn.Module | None
    ) -> Found:
        if module is None:
            return super().denoised(x, sigma, rows, None)
        assert isinstance(module, Lora)
        with module.installed():
            return super().denoised(x, sigma, rows, None)
