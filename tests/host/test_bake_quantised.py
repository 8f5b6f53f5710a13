"""A base in fewer bits is baked as ComfyUI computes with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comfyui_calibri.nodes.bake import _patch

from .test_compatibility_quantised import load, raw_fp8, scaled_fp8, weights  # noqa: F401
from .test_nodes_bake import preset_for

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize("quantise", [scaled_fp8, raw_fp8])
def test_the_patch_holds_what_the_numbers_stand_for(quantise: Any, weights: Any) -> None:  # noqa: F811
    with torch.inference_mode():
        model, numbers = quantise(weights)
        exact = load(numbers)
        preset = preset_for(exact)
        made, wanted = _patch(model, preset), _patch(exact, preset)
        assert made.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(
                made[name].float(), wanted[name].float(), rtol=1e-3, atol=1e-4
            )
