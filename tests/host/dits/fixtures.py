"""Fixtures that run a test once for every DiT: `case`, and `model`, a copy of its instance."""

from __future__ import annotations

import copy

import pytest
from torch import nn

from . import CASES
from .case import DitCase

_made: dict[str, nn.Module] = {}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, newest: bool) -> DitCase:
    chosen: DitCase = request.param
    made_or_skipped(chosen, newest)
    return chosen


@pytest.fixture
def model(case: DitCase) -> nn.Module:
    return copy.deepcopy(made(case))


def made_or_skipped(case: DitCase, newest: bool) -> nn.Module:
    """`made`; skips the test where the ComfyUI, unless it is the newest, lacks the class."""
    try:
        return made(case)
    except ImportError as error:
        if newest:
            raise
        pytest.skip(f"this ComfyUI has no {case.name} ({error})")


def made(case: DitCase) -> nn.Module:
    """The case's instance, made once for all tests: not to be changed."""
    if case.name not in _made:
        _made[case.name] = case.make()
    return _made[case.name]
