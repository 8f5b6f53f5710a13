"""Presets beside whatever changes or replaces a model's weights: none are written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras.nodes_model_merging import ModelMergeSimple, ModelSave
from safetensors.torch import load_file
from torch import Tensor

from .combinations import (
    KINDS,
    SCALE,
    apply,
    assert_alike,
    assert_combines,
    call,
    encode,
    make_preset,
    sample,
)
from .tiny_patchers import make_clip, make_model

pytestmark = pytest.mark.oldest

# Of each kind: a gate's own linear, a branch's last linear, attention.
PATCHED = {
    "flux": (
        "double_blocks.0.img_mod.lin",
        "double_blocks.1.img_mlp.2",
        "single_blocks.0.modulation.lin",
        "single_blocks.1.linear1",
    ),
    "sd3": (
        "joint_blocks.0.x_block.adaLN_modulation.1",
        "joint_blocks.0.context_block.attn.qkv",
        "joint_blocks.1.x_block.mlp.fc2",
    ),
}


@pytest.fixture(autouse=True)
def inference() -> Any:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module", params=["flux", "sd3"])
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(family: str) -> ModelPatcher:
    return make_model(family)


@pytest.fixture
def picture(clip: CLIP) -> Any:
    positive, negative = encode(clip, "a red circle"), encode(clip, "a blue square")
    return lambda model, cfg=SCALE: sample(model, positive, negative, cfg)


def lora(model: ModelPatcher, family: str, rank: int = 4) -> dict[str, Tensor]:
    """A LoRA file's tensors."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for path in PATCHED[family]:
        linear = model.model.diffusion_model.get_submodule(path)
        name = f"diffusion_model.{path}"
        up = torch.randn(linear.out_features, rank, generator=generator) * 0.05
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.lora_down.weight"] = torch.randn(
            rank, linear.in_features, generator=generator
        )
    return tensors


def with_lora(model: ModelPatcher, family: str, strength: float = 0.8) -> ModelPatcher:
    patched: ModelPatcher = comfy.sd.load_lora_for_models(
        model, None, lora(model, family), strength, 0.0
    )[0]
    return patched


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_on_the_gates_and_the_branches(
    model: ModelPatcher, family: str, picture: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_combines(model, kind, lambda m: with_lora(m, family), picture, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_takes_the_presets_of_the_first_model_and_no_ones_weights(
    model: ModelPatcher, picture: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset is no weight: on the second model it does not take part in the merge."""
    other = make_model("flux" if hasattr(model.model.diffusion_model, "double_blocks") else "sd3")
    for tensor in other.model.diffusion_model.parameters():
        tensor.mul_(0.9)

    def merge(one: ModelPatcher, two: ModelPatcher = other) -> ModelPatcher:
        merged: ModelPatcher = call(ModelMergeSimple, model1=one, model2=two, ratio=0.6)
        return merged

    assert_combines(model, kind, merge, picture, monkeypatch)
    preset = make_preset(other, kind)
    assert torch.equal(picture(merge(model, apply(other, preset))), picture(merge(model)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_holds_the_plain_weights(model: ModelPatcher, family: str, kind: str) -> None:
    """A preset is no weight: in the file are the plain ones, with the LoRAs, as ModelSave does."""
    for name, saved in (("plain", model), (kind, apply(model, make_preset(model, kind)))):
        ModelSave().save(with_lora(saved, family), f"compatibility/{family}-{name}")
    folder = Path(folder_paths.get_output_directory()) / "compatibility"
    plain = load_file(folder / f"{family}-plain_00001_.safetensors")
    found = load_file(max(folder.glob(f"{family}-{kind}_*")))
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_stay_in_ram_and_are_patched_when_used(
    model: ModelPatcher, family: str, picture: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low VRAM: ComfyUI casts the weights and adds the LoRA in the layers' own forward."""
    calibrated = apply(with_lora(model, family), make_preset(model, kind))
    expected = picture(calibrated)
    whole = ModelPatcher.partially_load

    def partially_load(self: ModelPatcher, device: Any, _: int = 0, *rest: Any, **kw: Any) -> Any:
        return whole(self, device, 1000, *rest, **kw)  # bytes of weights on the device

    comfy.model_management.unload_all_models()
    with monkeypatch.context() as patched:
        patched.setattr(ModelPatcher, "partially_load", partially_load)
        found = picture(calibrated)
        functions = [
            module.weight_function
            for module in calibrated.model.diffusion_model.modules()
            if getattr(module, "weight_function", None)
        ]
    comfy.model_management.unload_all_models()
    assert len(functions) == len(PATCHED[family])
    assert_alike(found, expected)
    assert_alike(picture(calibrated), expected)  # all of it loaded again


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_multiplies_the_one_before_it(
    model: ModelPatcher, picture: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = make_preset(model, "single", seed=9)
    assert_combines(model, kind, lambda m: apply(m, second), picture, monkeypatch)
