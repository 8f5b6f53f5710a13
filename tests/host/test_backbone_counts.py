"""How many coefficients the published models have, and which models are refused."""

from __future__ import annotations

import pytest
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ops import disable_weight_init
from torch import nn

from comfyui_calibri.calibri.backbones import UnknownBackboneError, read_backbone
from comfyui_calibri.calibri.coefficients import GRANULARITIES, coefficient_space

from .dits import CASES

pytestmark = pytest.mark.oldest

# Block, layer, gate; the paper's and the official code's numbers.
PUBLISHED = {
    "FLUX.1": (57, 76, 114),
    "SD3.5-medium": (24, 61, 107),
    "SD3.5-large": (38, 76, 150),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_at_full_size(name: str) -> None:
    (make,) = (case.sizes[name] for case in CASES if name in case.sizes)
    backbone = read_backbone(make())
    found = tuple(len(coefficient_space(backbone, g).names) for g in GRANULARITIES)
    assert found == PUBLISHED[name]


def test_a_unet_is_refused() -> None:
    unet: nn.Module = UNetModel(
        image_size=32,
        in_channels=4,
        model_channels=32,
        out_channels=4,
        num_res_blocks=[1, 1],
        channel_mult=(1, 2),
        num_heads=2,
        transformer_depth=[0, 0],
        transformer_depth_output=[0, 0, 0, 0],
        transformer_depth_middle=-1,
        operations=disable_weight_init,
    )
    with pytest.raises(UnknownBackboneError) as caught:
        read_backbone(unet)
    assert "class UNetModel with input_blocks (" in str(caught.value)
    assert "docs/backbones.md" in str(caught.value)
