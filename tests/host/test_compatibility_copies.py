"""Presets on copies of a model: deep clones, several GPUs, training; LoRAs in bypass mode.

All of it is newer than v0.3.64.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from comfyui_calibri.nodes.patching import backbone_of

from .combinations import (
    KINDS,
    SCALE,
    apply,
    assert_alike,
    assert_different,
    encode,
    folded,
    gains,
    make_preset,
    noise,
    run,
    sample,
)
from .tiny_patchers import make_clip, make_model


@pytest.fixture(autouse=True)
def inference() -> Any:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture
def model() -> ModelPatcher:
    """A model that says how to load it again, as loaders do for the nodes that need a copy."""
    patcher = make_model("sd3")
    patcher.cached_patcher_init = (lambda **_: make_model("sd3"), ())
    return patcher


@pytest.fixture
def picture(clip: CLIP) -> Any:
    positive, negative = encode(clip, "a red circle"), encode(clip, "a blue square")
    return lambda model, cfg=SCALE: sample(model, positive, negative, cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_clone_has_the_preset_on_its_own_weights(
    model: ModelPatcher, picture: Any, kind: str
) -> None:
    calibrated = apply(model, make_preset(model, kind))
    expected = picture(calibrated)
    copied = calibrated.clone(force_deepcopy=True)
    assert copied.model is not model.model
    for tensor in model.model.diffusion_model.parameters():
        tensor.mul_(0.9)  # no weight of the copy
    assert_alike(picture(copied), expected)
    assert_different(picture(calibrated), expected)


# A second name of the CPU, which ComfyUI's code for several GPUs takes for another device.
SECOND = torch.device("cpu", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_several_gpus_share_the_conditions_and_the_members(
    model: ModelPatcher, picture: Any, kind: str
) -> None:
    """In threads of ComfyUI's own, each with a deep clone of the model."""
    calibrated = apply(model, make_preset(model, kind))
    expected = picture(calibrated)
    other = calibrated.deepclone_multigpu(new_load_device=SECOND)
    other.is_multigpu_base_clone = True
    shared = calibrated.clone()
    shared.set_additional_models("multigpu", [other])
    calls: list[int] = []
    for patcher in (calibrated, other):
        patcher.model.diffusion_model.register_forward_pre_hook(
            lambda module, _: calls.append(id(module))
        )
    assert_alike(picture(shared), expected)
    assert len(set(calls)) == 2


def lora(model: ModelPatcher) -> dict[str, Tensor]:
    """A LoRA file's tensors, for a gate's own linear and for a branch's last one."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for path in ("joint_blocks.0.x_block.adaLN_modulation.1", "joint_blocks.1.x_block.mlp.fc2"):
        linear = model.model.diffusion_model.get_submodule(path)
        up = torch.randn(linear.out_features, 4, generator=generator) * 0.05
        down = torch.randn(4, linear.in_features, generator=generator)
        tensors[f"diffusion_model.{path}.lora_up.weight"] = up
        tensors[f"diffusion_model.{path}.lora_down.weight"] = down
    return tensors


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_in_bypass_mode_is_scaled_as_one_in_the_weights(
    model: ModelPatcher, picture: Any, kind: str
) -> None:
    def in_weights(m: ModelPatcher) -> ModelPatcher:
        return comfy.sd.load_lora_for_models(m, None, lora(m), 0.8, 0.0)[0]

    def in_forward(m: ModelPatcher) -> ModelPatcher:
        return comfy.sd.load_bypass_lora_for_models(m, None, lora(m), 0.8, 0.0)[0]

    preset = make_preset(model, kind)
    expected = picture(apply(in_weights(model), preset))
    assert_different(expected, picture(apply(model, preset)))
    plain = picture(in_forward(model))
    for calibrated in (apply(in_forward(model), preset), in_forward(apply(model, preset))):
        assert_alike(picture(calibrated), expected)
    assert torch.equal(picture(in_forward(model)), plain)


def train(model: ModelPatcher, clip: CLIP) -> float:
    """TrainLoraNode's loss at its one step."""
    from comfy_extras.nodes_train import TrainLoraNode

    settings = {
        "batch_size": 1,
        "grad_accumulation_steps": 1,
        "steps": 1,
        "learning_rate": 1e-3,
        "rank": 2,
        "optimizer": "SGD",
        "loss_function": "MSE",
        "seed": 3,
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": False,
        "offloading": False,
        "checkpoint_depth": 1,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": False,
    }
    adapters, losses, _ = TrainLoraNode.execute(
        model=[model],
        latents=[{"samples": noise(1)}],
        positive=[encode(clip, "a red circle")],
        **{name: [value] for name, value in settings.items()},
    ).result
    assert all(torch.isfinite(tensor).all() for tensor in adapters.values())
    (loss,) = losses["loss"]
    return float(loss)


def test_a_lora_is_trained_with_the_presets_gains(model: ModelPatcher, clip: CLIP) -> None:
    preset = make_preset(model, "single")
    before = {n: t.clone() for n, t in model.model.diffusion_model.state_dict().items()}
    found = train(apply(model, preset), clip)
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    reference = make_model("sd3")
    with torch.inference_mode(False):  # as TrainLoraNode loads its copy
        private = make_model("sd3")
    reference.cached_patcher_init = (lambda **_: private, ())
    with folded(private.model.diffusion_model, backbone_of(private), gains(model, preset)[0]):
        assert found == pytest.approx(train(reference, clip), rel=1e-5)
    assert found != pytest.approx(train(model, clip), rel=1e-4)
    # An ensemble of two halves of it predicts the same.
    half = replace(preset.members[0], weight=0.5)
    halves = apply(model, replace(preset, members=(half, half)))
    assert train(halves, clip) == pytest.approx(found, rel=1e-5)


def test_training_with_a_guided_preset_is_refused(model: ModelPatcher, clip: CLIP) -> None:
    with pytest.raises(ValueError, match="preset without guidance"):
        train(apply(model, make_preset(model, "guided")), clip)


@pytest.mark.parametrize("kind", ["single", "ensemble"])
def test_a_guider_of_two_models_uses_the_first_ones_preset_for_both(
    model: ModelPatcher, clip: CLIP, picture: Any, kind: str
) -> None:
    """ComfyUI hands the first model's options to the second, and the second's to nobody."""
    from comfy_extras.nodes_custom_sampler import DualModelGuider

    preset = make_preset(model, kind)
    prompts = {"positive": encode(clip, "a red circle"), "negative": encode(clip, "a blue square")}

    def both(one: ModelPatcher, two: ModelPatcher) -> Tensor:
        guider = DualModelGuider.execute(model=one, model_negative=two, cfg=SCALE, **prompts)[0]
        return run(guider)

    assert_alike(both(apply(model, preset), model), picture(apply(model, preset)))
    assert_alike(both(model, apply(model, preset)), picture(model))
