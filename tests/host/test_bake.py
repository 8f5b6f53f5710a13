"""A baked preset, applied by ComfyUI's own LoRA code, is the tapped model."""

from __future__ import annotations

from pathlib import Path

import comfy.lora
import pytest
import torch
from comfy.ldm.flux.model import Flux, FluxParams
from comfy.ops import manual_cast
from safetensors.torch import save_file
from torch import nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.bake import PREFIX, BakeError, weight_patch
from comfyui_calibri.calibri.model_file import ModelFileError, open_model_file

from .dits import CASES
from .dits.case import ALL, DitCase
from .dits.fixtures import made_or_skipped
from .dits.gains import make_taps, random_gains
from .tiny_patchers import FLUX

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


def test_the_patch_of_a_whole_flux_stays_below_ten_megabytes() -> None:
    blocks = {"double": 19, "single": 38}
    options = {**FLUX, "num_heads": 24, "depth": 1, "depth_single_blocks": 1}
    options |= {"hidden_size": 3072, "context_in_dim": 4096, "vec_in_dim": 768}
    options.pop("image_model")
    if "txt_ids_dims" in FluxParams.__dataclass_fields__:
        options["txt_ids_dims"] = []  # v0.3.64 has no such field
    model = Flux(**options, dtype=torch.float32, device="meta", operations=manual_cast)

    def read(path: str) -> torch.Tensor:
        return torch.ones(1).expand(model.get_parameter(path).shape)  # takes no memory

    row = random_gains(model, 1)[0].double().numpy()
    patch = weight_patch(model, read_backbone(model), row, read)
    total = 0
    for kind, count in blocks.items():
        of_kind = [tensor for name, tensor in patch.items() if f".{kind}_blocks." in name]
        assert len(of_kind) == {"double": 8, "single": 4}[kind]  # the modulations, of four tensors
        total += count * sum(tensor.nbytes + 150 for tensor in of_kind)  # in the header too
    assert 9_000_000 < total <= 10_000_000
