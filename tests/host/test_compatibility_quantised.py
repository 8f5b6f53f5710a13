"""Presets on checkpoints in fewer bits, judged on the same numbers in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from .combinations import (
    KINDS,
    SCALE,
    apply,
    assert_alike,
    assert_different,
    encode,
    folded_members,
    make_preset,
    sample,
)
from .tiny_patchers import make_clip, make_model

pytestmark = pytest.mark.oldest

FP8 = torch.float8_e4m3fn
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def inference() -> Any:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return make_model("sd3").model.diffusion_model.state_dict()


def load(weights: Weights, **options: Any) -> ModelPatcher:
    """What UNETLoader does with a file of these tensors."""
    copied = {name: tensor.clone() for name, tensor in weights.items()}
    model: ModelPatcher = comfy.sd.load_diffusion_model_state_dict(copied, model_options=options)
    return model


def linears(weights: Weights) -> list[str]:
    return [name for name, tensor in weights.items() if tensor.ndim == 2]


def scaled_fp8(weights: Weights) -> tuple[ModelPatcher, Weights]:
    """Each linear's weights in fp8 with a scale, as in files called fp8_scaled."""
    # v0.3.64 rounds their biases too.
    numbers = {n: t.to(FP8).float() if t.ndim == 1 else t for n, t in weights.items()}
    stored = {**numbers, "scaled_fp8": torch.empty(2, dtype=FP8)}
    for name in linears(weights):
        scale = weights[name].abs().max() / 448.0  # fp8's largest number
        stored[name] = (weights[name] / scale).to(FP8)
        stored[name.removesuffix("weight") + "scale_weight"] = scale
        numbers[name] = stored[name].float() * scale
    return load(stored), numbers


def raw_fp8(weights: Weights) -> tuple[ModelPatcher, Weights]:
    """UNETLoader's weight_dtype fp8_e4m3fn."""
    return load(weights, dtype=FP8), {name: t.to(FP8).float() for name, t in weights.items()}


class OnTheFly(comfy.ops.manual_cast):
    """Linear layers that keep int8 rows and their scales, and make floats of them in each call.

    As ComfyUI-GGUF's do, but with none of its code: its own files were tried by hand.
    """

    class Linear(comfy.ops.manual_cast.Linear):
        rows: Tensor  # int8 [out_features, in_features]
        scales: Tensor  # [out_features, 1]

        def forward(self, input: Tensor) -> Tensor:
            weight = self.rows.to(input.dtype) * self.scales.to(input.dtype)
            return torch.nn.functional.linear(input, weight, self.bias)


def on_the_fly(weights: Weights) -> tuple[ModelPatcher, Weights]:
    model, numbers = load(weights, custom_operations=OnTheFly), dict(weights)
    for path, linear in model.model.diffusion_model.named_modules():
        if isinstance(linear, OnTheFly.Linear):
            linear.scales = linear.weight.abs().amax(dim=1, keepdim=True) / 127.0
            linear.rows = (linear.weight / linear.scales).round().to(torch.int8)
            numbers[f"{path}.weight"] = linear.rows * linear.scales
            # Nothing can be read from the weight itself, as from GGUF's bytes.
            linear.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    return model, numbers


QUANTISED = {"scaled fp8": scaled_fp8, "raw fp8": raw_fp8, "on the fly": on_the_fly}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", QUANTISED)
def test_a_preset_acts_on_quantised_weights_as_on_their_numbers(
    weights: Weights, clip: CLIP, storage: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = encode(clip, "a red circle"), encode(clip, "a blue square")
    model, numbers = QUANTISED[storage](weights)
    plain = load(numbers, dtype=torch.float32)
    preset = make_preset(plain, kind)
    with folded_members(plain, preset, monkeypatch):
        expected = sample(plain, *prompts, SCALE)
    assert_alike(sample(apply(model, preset), *prompts, SCALE), expected)
    assert_alike(sample(model, *prompts, SCALE), sample(plain, *prompts, SCALE))
    assert_different(expected, sample(model, *prompts, SCALE))
