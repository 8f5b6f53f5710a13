"""A baked preset, applied by ComfyUI's own LoRA code, is the tapped model."""

from __future__ import annotations

import comfy.lora
import pytest
import torch
from torch import nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.bake import PREFIX, BakeError, weight_patch

from .dits.case import ALL, DitCase
from .dits.gains import make_taps, random_gains

pytestmark = pytest.mark.oldest

NOT_BAKED = {
    "Mochi": "through a tanh",
    "Hunyuan3D 2.1": "MoEBlock",  # a sum of experts
    "Trellis2": "FeedForwardNet|ProjectAttentionDense",  # a sum of two projections
    "Pixal3D": "FeedForwardNet|ProjectAttentionDense",
}


def apply_patch(model: nn.Module, patch: dict[str, torch.Tensor]) -> None:
    """By ComfyUI's code for LoRA files."""
    weights = model.state_dict()
    keys = {
        PREFIX + name.removesuffix(".weight"): PREFIX + name
        for name in weights
        if name.endswith(".weight")
    }
    loaded = comfy.lora.load_lora(dict(patch), keys)
    assert loaded
    for key, value in loaded.items():
        name = key.removeprefix(PREFIX)
        changed = comfy.lora.calculate_weight(
            [(1.0, value, 1.0, None, None)], weights[name].clone(), key
        )
        weights[name].copy_(changed)


def test_the_patched_model_is_the_tapped_model(case: DitCase, model: nn.Module) -> None:
    gains = random_gains(model, 1)
    row = gains[0].double().numpy()
    if case.name in NOT_BAKED:
        with pytest.raises(BakeError, match=NOT_BAKED[case.name]):
            weight_patch(model, read_backbone(model), row, model.get_parameter)
        return
    with make_taps(model).scaled(gains):
        tapped = case.call(model, ALL)
    apply_patch(model, weight_patch(model, read_backbone(model), row, model.get_parameter))
    baked = case.call(model, ALL)
    assert float((baked - tapped).abs().max()) <= 1e-4 * float(tapped.abs().max())
