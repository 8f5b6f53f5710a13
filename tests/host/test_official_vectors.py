"""Our taps on ComfyUI's classes give the outputs of Calibri's official code.

On the official recordings where they are there, and on those of our own reference: SD3's only on
the latter, because ComfyUI's class has heads of 64 channels and the recorded models smaller ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Backbone, read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble import combine, combine_guidance
from comfyui_calibri.calibri.official import read_layout, unflatten
from comfyui_calibri.calibri.official_vector import OfficialVector, read_official_vector
from comfyui_calibri.calibri.taps import GainTaps

from ..official_folder import official_vectors
from ..official_recordings import RECORDINGS, write_vector
from ..official_reference import Recording
from .official_models import call_model, make_model

pytestmark = pytest.mark.oldest

# What the official code does with weights of 0 is `verify`'s alone: nothing in ComfyUI does it.
OURS = [recording for recording in RECORDINGS if all(abs(w) > 0.1 for w in recording.weights)]


def fits(path: Path) -> bool:
    """Whether ComfyUI's class can take the recorded model's shape."""
    recorded = json.loads(path.read_text())
    config = recorded["config"]
    return recorded["backbone"] != "sd3" or (
        config["attention_head_dim"] == 64 and config["num_attention_heads"] == config["num_layers"]
    )


OFFICIAL = [path for path in official_vectors() if fits(path)]


def members_of(vector: OfficialVector, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """The members' gains [M, T], and their weights [1, M]."""
    second = [tap.index for tap in backbone.taps if tap.branch == "attention2"]
    layout = read_layout(vector.shapes, second if backbone.family == "sd3" else None)
    assert (layout.family, layout.blocks) == (backbone.family, backbone.blocks)
    members, weights = unflatten(layout, vector.coefficients)
    space = coefficient_space(backbone, layout.granularity)
    vectors = np.stack([space.vector(member) for member in members])
    return torch.from_numpy(space.expand(vectors)).float(), torch.tensor([weights])


def calibrated(vector: OfficialVector, model: nn.Module) -> Tensor:
    backbone = read_backbone(model)
    taps = GainTaps(model, backbone)
    gains, weights = members_of(vector, backbone)
    if vector.mode == "ensemble":
        # All members in one batch, each row with its member's gains.
        samples = len(vector.output)
        with taps.scaled(gains.repeat_interleave(samples, dim=0)):
            together = call_model(model, vector.inputs, copies=len(gains))
        members = together.split(samples)
        return combine(torch.zeros_like(members[0]), members, weights)
    with taps.scaled(gains[:1]):
        cond = call_model(model, vector.inputs)
    with taps.scaled(gains[1:2]):
        uncond = call_model(model, vector.unconditional)
    rescale = backbone.family == "qwen-image"
    return combine_guidance(torch.zeros_like(cond), cond, uncond, weights[:, :2], rescale)


def check(path: Path) -> None:
    vector = read_official_vector(path)
    model = make_model(vector)
    plain = call_model(model, vector.inputs)
    for found, recorded in (
        (plain, vector.plain_output),
        (calibrated(vector, model), vector.output),
    ):
        assert recorded is not None
        bound = 1e-5 * float(recorded.abs().max())
        torch.testing.assert_close(found, recorded, rtol=0, atol=bound)


@pytest.mark.parametrize("recording", OURS, ids=lambda recording: recording.name)
def test_recordings_of_the_reference(tmp_path: Path, recording: Recording, newest: bool) -> None:
    if recording.padded and not newest:
        pytest.skip("this ComfyUI's Qwen-Image does not look at a prompt's mask")
    check(write_vector(recording, tmp_path))


@pytest.mark.skipif(not OFFICIAL, reason="no official recordings: set CALIBRI_VECTORS to a folder")
@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_official_recordings(path: Path) -> None:
    check(path)
