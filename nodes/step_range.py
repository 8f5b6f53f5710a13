"""From when to when something acts on a model, in percent of sampling."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from comfy.model_base import BaseModel


class StepRange:
    """`start_percent` to `end_percent`, 0..1 of the sampling schedule."""

    def __init__(self, start_percent: float = 0.0, end_percent: float = 1.0) -> None:
        self.start_percent = start_percent
        self.end_percent = end_percent
        self._noise_levels: weakref.WeakKeyDictionary[torch.nn.Module, tuple[float, float]]
        self._noise_levels = weakref.WeakKeyDictionary()

    @property
    def acts_always(self) -> bool:
        """Whether it acts from the first step to the last."""
        return self.start_percent <= 0.0 and self.end_percent >= 1.0

    def within_range(self, sigma: torch.Tensor, model: BaseModel) -> torch.Tensor:
        """Whether it acts at the noise level `sigma` [rows], equal in all rows.

        A boolean [] on sigma's device, so that nobody has to wait until it is computed.
        """
        # Asked of the model in use, so that a later ModelSampling node is heeded; once, because
        # some schedules look it up in a table on the device.
        schedule = model.model_sampling
        if schedule not in self._noise_levels:
            start = float(schedule.percent_to_sigma(self.start_percent))
            end = float(schedule.percent_to_sigma(self.end_percent))
            self._noise_levels[schedule] = (start, end)
        start, end = self._noise_levels[schedule]
        level = sigma.max()
        return (end <= level) & (level <= start)

    def acts_at(self, sigma: torch.Tensor, model: BaseModel) -> bool:
        """The same for those who must know now and wait for the device, unless it acts always."""
        return self.acts_always or bool(self.within_range(sigma, model))
