"""A baked preset, applied by ComfyUI's own LoRA code, is the tapped model."""

from __future__ import annotations

from pathlib import Path

import comfy.lora
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.bake import PREFIX, BakeError, weight_patch
from comfyui_calibri.calibri.model_file import ModelFileError, open_model_file

from .dits import CASES
from .dits.case import ALL, DitCase
from .dits.fixtures import made_or_skipped
from .dits.gains import make_taps, random_gains

pytestmark = pytest.mark.oldest

NOT_BAKED = {
    "Mochi": "through a tanh",
    "Hunyuan3D 2.1": "MoEBlock",  # a sum of experts
    "Trellis2": "FeedForwardNet|ProjectAttentionDense",  # a sum of two projections
    "Pixal3D": "FeedForwardNet|ProjectAttentionDense",
}
# Their branches end in modules of modules, of which a file does not tell the class.
ONLY_IN_COMFYUI = {
    "ernie-image",
    "hidream-o1",
    "joyimage",
    "krea2",
    "ltx-2",
    "ltx-video",
    "seedvr2",
    "stable-audio",
    "stable-audio-3",
}
ONE_OF_EACH = {case.family: case for case in reversed(CASES) if case.name not in NOT_BAKED}


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


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=lambda case: case.name)
def test_the_models_file_gives_the_same_patch(case: DitCase, newest: bool, tmp_path: Path) -> None:
    model = made_or_skipped(case, newest)
    row = random_gains(model, 1)[0].double().numpy()
    backbone = read_backbone(model)
    weights = {PREFIX + name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    if case.family in ONLY_IN_COMFYUI:
        with (
            pytest.raises(ModelFileError, match=r"not to be seen|ComfyUI's own layout"),
            open_model_file(tmp_path / "model.safetensors", backbone.family),
        ):
            pass
        return
    with open_model_file(tmp_path / "model.safetensors", backbone.family) as file:
        assert file.backbone == backbone
        made = weight_patch(file.model, file.backbone, row, file.read)
    wanted = weight_patch(model, backbone, row, model.get_parameter)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name].float(), wanted[name].float()) for name in wanted)
