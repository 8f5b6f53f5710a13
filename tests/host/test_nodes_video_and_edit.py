"""Frames and input images: a preset scales the branches of a whole sampler run, and nothing else.

The workflows of video and edit models, conditioning included, on tiny real models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Member, Preset
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.patching import backbone_of, diffusion_model

from .tiny_patchers import WIDTH
from .tiny_video_and_edit import CASES, TOKENS, Draw, NodeCase

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def workflow(request: pytest.FixtureRequest) -> NodeCase:
    case: NodeCase = request.param
    return case


@pytest.fixture(scope="module")
def model(workflow: NodeCase, newest: bool) -> ModelPatcher:
    try:
        with torch.inference_mode():
            return workflow.make()
    except (ImportError, TypeError):
        if newest:
            raise
        pytest.skip("this ComfyUI does not have it")


def conditioning(workflow: NodeCase, seed: int) -> list[Any]:
    """A prompt and the workflow's conditions, as the conditioning nodes hand them to KSampler."""
    draw = Draw(seed)
    context, pooled = draw(1, TOKENS, WIDTH), draw(1, WIDTH)
    return [[context, {"pooled_output": pooled, **workflow.conditions(draw)}]]


def sample(model: ModelPatcher, workflow: NodeCase, cfg: float) -> Tensor:
    """Latents [1, *workflow.latent] of ComfyUI's own KSampler."""
    import nodes

    latent: dict[str, Any] = {"samples": Draw(3)(1, *workflow.latent)}
    if workflow.first_frame_given:
        mask = torch.ones(1, 1, *workflow.latent[1:])
        mask[:, :, 0] = 0.0
        latent["noise_mask"] = mask
    positive, negative = conditioning(workflow, 1), conditioning(workflow, 2)
    result: Tensor = nodes.KSampler().sample(
        model, 5, 2, cfg, "euler", "simple", positive, negative, latent
    )[0]["samples"]
    return result


def random_preset(model: ModelPatcher) -> Preset:
    """A coefficient in -1...2 for each gate."""
    space = coefficient_space(backbone_of(model), "gate")
    generator = torch.Generator().manual_seed(4)
    values = torch.empty(len(space.names)).uniform_(-1.0, 2.0, generator=generator)
    return preset_of(model, dict(zip(space.names, values.tolist(), strict=True)))


def preset_of(model: ModelPatcher, coefficients: dict[str, float]) -> Preset:
    backbone = backbone_of(model)
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity="gate",
        members=(Member(coefficients),),
        title="random",
    )


def apply(model: ModelPatcher, preset: Preset, strength: float = 1.0) -> ModelPatcher:
    clone: ModelPatcher = CalibriApply.execute(model, preset, strength, 0.0, 1.0).args[0]
    return clone


@pytest.fixture(params=[1.0, 3.0])
def cfg(request: pytest.FixtureRequest, workflow: NodeCase, newest: bool) -> float:
    """Without and with the negative prompt beside the positive one in a call."""
    scale: float = request.param
    if scale != 1.0 and workflow.fails_in_batches and not newest:
        pytest.skip("this ComfyUI itself fails with two prompts in a call")
    return scale


def test_preset_scales_the_branches_and_nothing_else(
    workflow: NodeCase, model: ModelPatcher, cfg: float
) -> None:
    preset = random_preset(model)
    plain = sample(model, workflow, cfg)
    assert plain.shape == (1, *workflow.latent)
    assert plain.isfinite().all()
    calibrated = sample(apply(model, preset), workflow, cfg)
    module, backbone = diffusion_model(model), backbone_of(model)
    coefficients = preset.members[0].coefficients
    gains = torch.tensor([[coefficients[tap.name] for tap in backbone.taps]])
    with GainTaps(module, backbone).scaled(gains):
        expected = sample(model, workflow, cfg)
    assert torch.equal(calibrated, expected)
    assert not torch.allclose(calibrated, plain, atol=1e-3)
    assert torch.equal(sample(model, workflow, cfg), plain)


def test_identity_and_strength_0_change_no_bit(
    workflow: NodeCase, model: ModelPatcher, cfg: float
) -> None:
    plain = sample(model, workflow, cfg)
    ones = preset_of(model, dict.fromkeys(coefficient_space(backbone_of(model), "gate").names, 1.0))
    assert torch.equal(sample(apply(model, ones), workflow, cfg), plain)
    assert torch.equal(sample(apply(model, random_preset(model), 0.0), workflow, cfg), plain)
