"""`torch.compile` sees the taps of every family: calibrated and plain calls in turn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from .dits import CASES
from .dits.case import ALL, SAMPLES, DitCase
from .dits.fixtures import made_or_skipped
from .dits.gains import make_taps, random_gains

# The first of each family: how a family is tapped is what matters to the compiler.
ONE_OF_EACH = {case.family: case for case in reversed(CASES)}
# On the oldest ComfyUI one for each way of tapping: at gates, at whole outputs, along other axes
# than the first, of all samples together, through a tanh.
OLDEST = {"flux", "wan", "cosmos", "hunyuan3d-2.1", "mochi"}


pytestmark = [
    pytest.mark.oldest,
    pytest.mark.slow,
    pytest.mark.usefixtures("steady_memory"),
]


@pytest.mark.parametrize("family", sorted(ONE_OF_EACH))
def test_compiled_model(family: str, newest: bool) -> None:
    if not newest and family not in OLDEST:
        pytest.skip("compiled on the newest ComfyUI")
    torch._dynamo.reset()
    case: DitCase = ONE_OF_EACH[family]
    model = copy.deepcopy(made_or_skipped(case, newest))
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
