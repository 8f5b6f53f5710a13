"""What a model keeps from call to call does not carry gains from one call into another.

Only HiDream-O1 keeps something, which v0.3.64 does not have.
"""

from __future__ import annotations

import copy

import torch

from .dits.case import ALL
from .dits.gains import make_taps, random_gains
from .dits.hidream_o1 import call, make, step


def test_gains_do_not_reach_other_calls_through_the_cached_prompt() -> None:
    model = make()
    fresh, other = copy.deepcopy(model), copy.deepcopy(model)
    first, second = (random_gains(model, 1, seed) for seed in range(2))
    with make_taps(other).scaled(second):
        expected = call(other, ALL)
    plain = call(fresh, ALL), step(fresh, ALL)  # the second finds the prompt of the first

    assert torch.equal(call(model, ALL), plain[0])
    taps = make_taps(model)
    for _ in range(2):
        with taps.scaled(first):
            assert not torch.equal(step(model, ALL), expected)
        with taps.scaled(second):
            assert torch.equal(step(model, ALL), expected)
    assert torch.equal(step(model, ALL), plain[1])
