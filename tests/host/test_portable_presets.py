"""Coefficients have the same names in the same order in ComfyUI's classes and in diffusers'."""

from __future__ import annotations

import pytest

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.coefficients import GRANULARITIES, coefficient_space

from .dits import CASES

pytestmark = pytest.mark.oldest

SIZES = {name: make for case in CASES for name, make in case.sizes.items()}
SUFFIX = " in diffusers"


@pytest.mark.parametrize("name", [name for name in SIZES if name.endswith(SUFFIX)])
def test_a_preset_fits_both(name: str) -> None:
    theirs = read_backbone(SIZES[name]())
    ours = read_backbone(SIZES[name.removesuffix(SUFFIX)]())
    assert (theirs.family, theirs.blocks) == (ours.family, ours.blocks)
    for granularity in GRANULARITIES:
        names = coefficient_space(ours, granularity).names
        assert coefficient_space(theirs, granularity).names == names
