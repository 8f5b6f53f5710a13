"""Gradients through real models that were loaded in inference mode, as nodes find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from comfyui_calibri.ahpa.hidden import HiddenReader, read_blocks
from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.nodes.conditioning import Conditioning, encode, stack
from comfyui_calibri.nodes.frozen_copy import is_flow, trainable
from comfyui_calibri.nodes.gain_layer import GainLayer
from comfyui_calibri.nodes.patching import apply_gains, backbone_of
from comfyui_calibri.training.checkpointing import checkpointed
from comfyui_calibri.training.lora import Lora, linear_layers

from . import tiny_video_and_edit as tiny
from .tiny_patchers import FLUX, SD3, make_clip, make_patcher

pytestmark = pytest.mark.oldest

PROMPTS = ("a red circle", "a small blue star")
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "FLUX.1": ("Flux", FLUX, (16, 8, 8)),
    "SD3": ("SD3", SD3, (16, 8, 8)),
    "SD3.5": ("SD3", {**SD3, "x_block_self_attn_layers": [0]}, (16, 8, 8)),
    "Wan": ("WAN21_T2V", tiny.WAN, (16, 1, 8, 8)),
    "Qwen-Image": ("QwenImage", tiny.QWEN_IMAGE, (16, 1, 8, 8)),
    "Lumina 2": ("Lumina2", tiny.LUMINA_2, (16, 8, 8)),
}


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    with torch.inference_mode():
        return make_clip(Path(tmp_path_factory.mktemp("clip")))


def prompts_of(clip: CLIP, masked: bool = False) -> Conditioning:
    encoded = [encode(clip, text, None) for text in PROMPTS]
    for ((context, options),) in encoded if masked else ():
        options["attention_mask"] = torch.ones(context.shape[:2], dtype=torch.long)
    return stack(encoded, torch.device("cpu"))


def made(family: str) -> tuple[ModelPatcher, tuple[int, ...]]:
    kind, options, shape = FAMILIES[family]
    try:
        return make_patcher(kind, options), shape
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_what_acts_on_the_copy_and_the_model_stays_as_it_is(
    family: str, clip: CLIP
) -> None:
    patcher, shape = made(family)
    before = {name: value.clone() for name, value in patcher.model.state_dict().items()}
    prompts = prompts_of(clip, masked=family == "Lumina 2")
    with trainable(patcher) as copy:
        assert copy.is_flow
        dit = copy.diffusion_model
        assert dit is not patcher.model.diffusion_model
        blocks = [block.module for block in read_blocks(dit)]
        lora = Lora(dit, linear_layers(dit, blocks), rank=2, alpha=1.0, seed=0)
        for parameter in lora.parameters.values():
            torch.nn.init.normal_(parameter, std=0.05)
        g = torch.Generator().manual_seed(0)
        x = torch.randn(2, *shape, generator=g)
        sigma = torch.tensor([0.3, 0.8])
        gains = torch.ones(2, len(read_backbone(dit).taps), requires_grad=True)
        taps = GainTaps(dit, read_backbone(dit))
        reader = HiddenReader(dit, read_blocks(dit)[0], 16)

        def gradients(**around: Any) -> tuple[torch.Tensor, ...]:
            with lora.acting(), reader, taps.scaled(gains), checkpointed(around.get("blocks", ())):
                velocity = copy.velocity(x, sigma, prompts)
                loss = velocity.square().mean() + reader.tokens.float().square().mean()
                return torch.autograd.grad(
                    loss, [gains, *lora.parameters.values()], allow_unused=True
                )

        found = gradients()
        reached = [g for g in found[1:] if g is not None and bool(g.abs().sum() > 0)]
        assert found[0] is not None
        assert found[0].abs().sum() > 0
        assert len(reached) > 0.8 * len(lora.parameters)  # a last text block's may have no use
        again = gradients(blocks=[dit.get_submodule(path) for path in blocks])
        for one, other in zip(found, again, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    after = patcher.model.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert not any(module._forward_pre_hooks for module in patcher.model.modules())


def test_the_copy_predicts_what_the_model_does_and_stays_where_it_is(clip: CLIP) -> None:
    patcher, shape = made("FLUX.1")
    patcher.offload_device = torch.device("meta")  # what is moved there is lost
    prompts, x = prompts_of(clip), torch.randn(2, *shape)
    with trainable(patcher) as copy:
        pooled = prompts[0][1]["pooled_output"]
        with torch.no_grad():
            direct = patcher.model.diffusion_model(
                x.clone(), torch.tensor([0.5, 0.5]), prompts[0][0], pooled, torch.tensor([3.5, 3.5])
            )
        found = copy.velocity(x, torch.tensor([0.5, 0.5]), prompts).detach()
        comfy.model_management.unload_all_models()  # as a VAE may, where memory is short
        again = copy.velocity(x, torch.tensor([0.5, 0.5]), prompts).detach()
        assert torch.equal(found, again)
    assert torch.allclose(found, direct, atol=1e-4)


def test_a_model_with_a_preset_is_refused() -> None:
    patcher, _ = made("FLUX.1")
    assert is_flow(patcher)
    gains = GainLayer(torch.ones(1, 1, len(backbone_of(patcher).taps)))
    with (
        pytest.raises(ValueError, match="connect the model from before it"),
        trainable(apply_gains(patcher, gains)),
    ):
        pass
