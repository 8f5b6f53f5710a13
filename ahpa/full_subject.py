"""A whole model as AHPA's training sees it (`subject.py`): all its weights learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .subject import Latents


class Conditions:
    """What a model is told of each picture, and of none: rows of tables.

    `numbers` [P + 1] are the rows of pictures, the last one that of the empty condition; a model
    is given the rows of each table [N, ...].
    """

    def __init__(self, numbers: Tensor, tables: Sequence[Tensor]) -> None:
        self._numbers, self._tables = numbers, tuple(tables)

    @classmethod
    def of_classes(cls, labels: Sequence[int], classes: int) -> Conditions:
        """Class numbers; `classes` itself means none."""
        return cls(torch.tensor([*labels, classes]), [torch.arange(classes + 1)])

    @classmethod
    def of_captions(
        cls, captions: Sequence[str], encode: Callable[[list[str]], Sequence[Tensor]]
    ) -> Conditions:
        """Texts; the empty one means none. Each is encoded and kept once."""
        once = {text: number for number, text in enumerate(dict.fromkeys((*captions, "")))}
        numbers = torch.tensor([once[text] for text in (*captions, "")])
        return cls(numbers, encode(list(once)))

    @property
    def widths(self) -> tuple[int, ...]:
        """The last dimension of each table."""
        return tuple(table.shape[-1] for table in self._tables)

    @property
    def pooled(self) -> Conditions:
        """Its last table alone: class numbers, or the pooled texts."""
        return Conditions(self._numbers, self._tables[-1:])

    def told(self, rows: Tensor, empty: Tensor) -> tuple[Tensor, ...]:
        """Of pictures rows [B], on the CPU; where empty [B] is true, the empty one."""
        numbers = self._numbers[torch.where(empty, len(self._numbers) - 1, rows)]
        return tuple(table[numbers] for table in self._tables)


class ModelSubject:
    """Satisfies `subject.Subject`. `model` is called with latents, times and what it is told."""

    def __init__(
        self,
        model: nn.Module,
        latents: Latents,
        conditions: Conditions,
        device: torch.device,
        look_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises ValueError where model and latents do not fit each other."""
        self.model = model.to(device).train().requires_grad_(True)
        self.latents, self.conditions, self.device = latents, conditions, device
        self.look_up = look_up
        self.grid = token_grid(model, latents.shape)
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())

    def velocity(self, x: Tensor, t: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
        """See the protocol."""
        told = (part.to(self.device) for part in self.conditions.told(rows, empty))
        out: Tensor = self.model(x, t, *told)
        return out

    def groups(self, rows: Tensor, empty: Tensor) -> Sequence[Tensor]:
        """All share a call."""
        return (torch.arange(len(rows)),)


def token_grid(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the tokens of latents [P, C, H, W].

    Raises ValueError where the model takes others.
    """
    config: Any = model.config
    if shape[1] != config.channels:
        raise ValueError(
            f"The VAE makes latents of {shape[1]} channels and the model takes {config.channels}: "
            "give the VAE that belongs to the model."
        )
    side, patch = getattr(config, "side", None), config.patch
    if side is not None and tuple(shape[2:]) != (side, side):
        raise ValueError(
            f"The crop makes latents of {shape[2]} x {shape[3]} and the model takes {side} x "
            f"{side}: give a --size of {side} times the VAE's factor."
        )
    if shape[2] % patch or shape[3] % patch:
        raise ValueError(
            f"The crop makes latents of {shape[2]} x {shape[3]}, which the model's patches of "
            f"{patch} x {patch} do not divide: give a --size that is a multiple of them."
        )
    return shape[2] // patch, shape[3] // patch
