"""One preset, or one batch of candidates, as it acts on a model: gains, weights, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .step_range import StepRange

if TYPE_CHECKING:
    from ..calibri.presets import Guidance


class GainLayer(StepRange):
    """The gains of M members on T taps: [1, M, T], or [R, M, T] for R rows of their own.

    Those of one member may be given as [1, T] or [R, T]. An ensemble has `weights`, [1, M] or
    [R, M]; without them there is one member, whose prediction is the model's. With `guidance`
    (M = 2) member 0 predicts with the positive conditioning and member 1 with the negative one.
    `start_percent` and `end_percent`, 0..1 of the sampling schedule, say when the layer acts.
    """

    def __init__(
        self,
        gains: torch.Tensor,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        weights: torch.Tensor | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(start_percent, end_percent)
        self.guidance = guidance
        self.replace(gains, weights)

    def replace(self, gains: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Other gains and weights, of shapes as above, from the next model call on."""
        self.gains = (gains[:, None] if gains.ndim == 2 else gains).to(torch.float32)
        self.weights = None if weights is None else weights.to(torch.float32)
        # Asked of the numbers as they come, on the CPU: later they may be on a GPU.
        self.live_members = () if weights is None else _live(weights)
        self._copies: dict[tuple[str, torch.device], torch.Tensor] = {}

    @property
    def is_ensemble(self) -> bool:
        return self.weights is not None

    @property
    def has_members(self) -> bool:
        """Whether its members are told apart by entries of the batch, not by condition."""
        return self.is_ensemble and self.guidance is None

    def gains_at(self, device: torch.device) -> torch.Tensor:
        """The gains [R, M, T] on `device`, copied there once."""
        return self._copy("gains", self.gains, device)

    def weights_at(self, device: torch.device) -> torch.Tensor:
        """The weights [R, M] of an ensemble on `device`."""
        assert self.weights is not None
        return self._copy("weights", self.weights, device)

    def plain_weights_at(self, device: torch.device) -> torch.Tensor:
        """The weights [1, 2] of plain guidance at the preset's scale g: g and 1 - g."""
        assert self.guidance is not None
        scale = self.guidance.scale
        return self._copy("plain", torch.tensor([[scale, 1.0 - scale]]), device)

    def _copy(self, name: str, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if (name, device) not in self._copies:
            self._copies[name, device] = tensor.to(device)
        return self._copies[name, device]


def _live(weights: torch.Tensor) -> tuple[int, ...]:
    """The members with a weight in some row; the first where there is none, to have a shape."""
    return tuple(torch.nonzero(weights.ne(0).any(dim=0)).flatten().tolist()) or (0,)
