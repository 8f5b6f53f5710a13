"""A preset made of a checkpoint gives what the official code gives, weights of 0 included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble import combine, combine_guidance
from comfyui_calibri.calibri.official_file import OfficialCheckpoint
from comfyui_calibri.calibri.official_preset import (
    CFG,
    ENSEMBLE,
    fit_to_model,
    preset_of_checkpoint,
)
from comfyui_calibri.calibri.official_vector import read_official_vector
from comfyui_calibri.calibri.presets import Member
from comfyui_calibri.calibri.recorded_model import call, make_model
from comfyui_calibri.calibri.taps import GainTaps

from ..official_recordings import RECORDINGS, write_vector

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "flux_with_a_silent_member",
        "sd35_second_attention_elsewhere",
        "sd3_guided",
        "sd3_guided_without_negative_weight",
        "qwen_guided_unevenly",
        "qwen_guided_without_weight",
        "qwen_silent",
    ],
)
def test_outputs(tmp_path: Path, name: str) -> None:
    (recording,) = (recording for recording in RECORDINGS if recording.name == name)
    vector = read_official_vector(write_vector(recording, tmp_path))
    model = make_model(vector)
    backbone = read_backbone(model)
    checkpoint = OfficialCheckpoint(vector.shapes, vector.coefficients)
    preset = preset_of_checkpoint(checkpoint, CFG if vector.mode == "cfg" else ENSEMBLE)
    preset = fit_to_model(checkpoint, preset, backbone)
    space = coefficient_space(backbone, preset.granularity)
    taps = GainTaps(model, backbone)

    def predict(member: Member, inputs: Mapping[str, Any]) -> Tensor:
        gains = space.expand(space.vector(member.coefficients)[None])
        with taps.scaled(torch.from_numpy(gains)):
            return call(model, inputs)

    weights = torch.tensor([[member.weight for member in preset.members]])
    if preset.guidance is None:
        found = [predict(member, vector.inputs) for member in preset.members]
        output = combine(torch.zeros_like(found[0]), found, weights)
    else:
        cond = predict(preset.members[0], vector.inputs)
        uncond = predict(preset.members[1], vector.unconditional)
        rescale = preset.guidance.rescale
        output = combine_guidance(torch.zeros_like(cond), cond, uncond, weights, rescale)
    bound = 1e-5 * float(vector.output.abs().max())
    torch.testing.assert_close(output, vector.output.double(), rtol=0, atol=bound)
