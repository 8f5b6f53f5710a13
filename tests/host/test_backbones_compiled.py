"""`torch.compile` sees the taps of every family: calibrated and plain calls in turn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .dits.case import ALL, SAMPLES, DitCase
from .dits.gains import make_taps, random_gains


@pytest.mark.slow
def test_compiled_model(case: DitCase, model: nn.Module) -> None:
    torch._dynamo.reset()
    samples = 1 if case.one_gain_for_all else SAMPLES
    taps, plain = make_taps(model), case.call(model, ALL)
    covered = torch.compile(model, backend="eager")
    assert isinstance(covered, nn.Module)
    for seed in range(2):
        gains = random_gains(model, samples, seed)
        with taps.scaled(gains):
            expected = case.call(model, ALL)
            assert torch.equal(case.call(covered, ALL), expected)
        assert torch.equal(case.call(covered, ALL), plain)
