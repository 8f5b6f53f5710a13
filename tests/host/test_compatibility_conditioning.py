"""Conditioning that says more than a prompt, and batches that memory splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.cldm.mmdit
import comfy.controlnet
import comfy.hooks
import comfy.ops
import nodes
import pytest
import torch
from comfy.ldm.flux.controlnet import ControlNetFlux
from comfy.ldm.flux.model import FluxParams
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras.nodes_edit_model import ReferenceLatent
from torch import Tensor

from .combinations import (
    KINDS,
    apply,
    assert_alike,
    assert_different,
    call,
    encode,
    folded_members,
    make_preset,
    noise,
    sample,
)
from .tiny_models import randomised
from .tiny_patchers import FLUX, SD3, make_clip, make_model

pytestmark = pytest.mark.oldest

Prompts = tuple[list[Any], list[Any]]


@pytest.fixture(autouse=True)
def inference() -> Any:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    return make_model("sd3")


@pytest.fixture
def prompts(clip: CLIP) -> Prompts:
    return encode(clip, "a red circle"), encode(clip, "a blue square")


def assert_conditions(
    model: ModelPatcher,
    kind: str,
    conditions: Prompts,
    plain: Prompts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `conditions` a preset gives the folded members' picture, and not that of `plain`."""
    preset = make_preset(model, kind)
    with folded_members(model, preset, monkeypatch):
        expected = sample(model, *conditions)
        assert_different(expected, sample(model, *plain))
    assert_different(expected, sample(model, *conditions))
    assert_alike(sample(apply(model, preset), *conditions), expected)


def controlnet(family: str) -> comfy.controlnet.ControlNet:
    """A ControlNet whose hints are latents [1, 16, 8, 8]."""
    operations = comfy.ops.disable_weight_init
    extra = ["y", "guidance"]
    if family == "flux":
        options = {key: value for key, value in FLUX.items() if key != "image_model"}
        if "txt_ids_dims" in FluxParams.__dataclass_fields__:
            options["txt_ids_dims"] = []
        network = ControlNetFlux(
            latent_input=True, control_latent_channels=16, operations=operations, **options
        )
    else:
        network = comfy.cldm.mmdit.ControlNet(num_blocks=2, operations=operations, **SD3)
    network.dtype = torch.float32
    return comfy.controlnet.ControlNet(
        randomised(network), compression_ratio=1, load_device=torch.device("cpu"), extra_conds=extra
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_a_controlnet_controls_every_member(
    family: str, prompts: Prompts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controlled = nodes.ControlNetApplyAdvanced().apply_controlnet(
        *prompts, controlnet(family), noise(2).movedim(1, -1), 0.4, 0.0, 0.8
    )
    assert_conditions(make_model(family), kind, controlled, prompts, monkeypatch)


def in_area(conditioning: list[Any], **changes: Any) -> list[Any]:
    area = {"width": 32, "height": 64, "x": 0, "y": 0, "strength": 1.0, **changes}
    placed: list[Any] = nodes.ConditioningSetArea().append(conditioning, **area)[0]
    return placed


def regions(clip: CLIP) -> list[Any]:
    """A background, one prompt in an area, one in another of another size, one in a mask."""
    mask = torch.zeros(1, 8, 8)
    mask[:, 4:, :5] = 1.0
    return [
        *encode(clip, "a street"),
        *in_area(encode(clip, "two green stars"), strength=1.7),
        *in_area(encode(clip, "a red circle"), x=32, y=16, height=48),
        *nodes.ConditioningSetMask().append(encode(clip, "a dog"), mask, "default", 0.8)[0],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_areas_and_masks(
    model: ModelPatcher, clip: CLIP, prompts: Prompts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    negative = [*prompts[1], *in_area(encode(clip, "blue"), x=32)]
    assert_conditions(model, kind, (regions(clip), negative), prompts, monkeypatch)


@pytest.mark.parametrize("rows", [2, 4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_for_some_rows_only(
    model: ModelPatcher,
    clip: CLIP,
    prompts: Prompts,
    kind: str,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks of several regions, of both prompts and all members, in batches of all sizes."""
    preset, conditions = make_preset(model, kind), (regions(clip), prompts[1])
    with folded_members(model, preset, monkeypatch):
        expected = sample(model, *conditions)
    calls: list[int] = []
    with monkeypatch.context() as patched:
        needed = lambda shape, **_: 0.0 if shape[0] <= rows else 1e30  # noqa: E731
        patched.setattr(model.model, "memory_required", needed)
        handle = model.model.diffusion_model.register_forward_pre_hook(
            lambda _, args: calls.append(len(args[0]))
        )
        found = sample(apply(model, preset), *conditions)
        handle.remove()
    assert_alike(found, expected)
    assert max(calls) <= rows


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_take_turns(
    model: ModelPatcher, clip: CLIP, prompts: Prompts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_range = nodes.ConditioningSetTimestepRange().set_range
    early = set_range(prompts[0], 0.0, 0.4)[0]
    late = set_range(encode(clip, "two green stars"), 0.4, 1.0)[0]
    assert_conditions(model, kind, ([*early, *late], prompts[1]), prompts, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_reference_latents_of_flux_kontext(
    clip: CLIP, prompts: Prompts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = {"samples": noise(1).flip(-1)}
    referring = tuple(call(ReferenceLatent, conditioning=c, latent=latent) for c in prompts)
    assert_conditions(make_model("flux"), kind, referring, prompts, monkeypatch)


def branch_lora() -> dict[str, Tensor]:
    """A LoRA file's tensors for one branch's last linear [128, 512]."""
    path = "diffusion_model.joint_blocks.0.x_block.mlp.fc2"
    generator = torch.Generator().manual_seed(11)
    return {
        f"{path}.lora_up.weight": torch.randn(128, 4, generator=generator) * 0.1,
        f"{path}.lora_down.weight": torch.randn(4, 512, generator=generator),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_hooked_to_one_prompt(
    model: ModelPatcher, prompts: Prompts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = comfy.hooks.create_hook_lora(branch_lora(), 0.9, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompts[0], hooks), prompts[1]
    assert_conditions(model, kind, hooked, prompts, monkeypatch)


def test_a_guided_preset_guides_with_an_empty_negative_prompt(
    model: ModelPatcher, clip: CLIP, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_conditions(model, "guided", (prompts[0], encode(clip, "")), prompts, monkeypatch)
