"""Tiny MODELs whose latents have frames, or that take more than a prompt: images, masks, frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import comfy.ldm.wan.vae
import comfy.sd
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams
from comfy.ldm.wan.vae import WanVAE
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .dits.flux_kin import CHROMA as TINY_CHROMA
from .dits.flux_kin import known_to
from .dits.hunyuan_video import BASE as HUNYUAN
from .dits.hunyuan_video import UNSET as HUNYUAN_UNSET
from .tiny_models import randomised
from .tiny_patchers import FLUX, WIDTH, make_patcher

HEIGHT, WIDE = 4, 6  # of a latent frame
TOKENS = 5


@dataclass(frozen=True)
class NodeCase:
    """A MODEL and what stands in its workflow beside the prompt.

    `conditions` draws options of its conditioning with the given function, which returns
    standard normal numbers of a shape.
    """

    name: str
    kind: str  # class of comfy/supported_models.py
    options: dict[str, Any]
    latent: tuple[int, ...]  # channels, frames of a video, height, width
    conditions: Callable[[Draw], dict[str, Any]] = lambda draw: {}
    first_frame_given: bool = False
    fails_in_batches: bool = False  # in v0.3.64, with a preset or without

    def make(self) -> ModelPatcher:
        return make_patcher(self.kind, self.options)


class Draw:
    """Fixed standard normal numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def _reference(draw: Draw) -> dict[str, Any]:
    """Two pictures of other sizes than the result, for models of pictures."""
    return {"reference_latents": [draw(1, 16, 4, 6), draw(1, 16, 6, 4)]}


def _video_reference(draw: Draw) -> dict[str, Any]:
    """The same for models whose latents have frames."""
    return {"reference_latents": [draw(1, 16, 1, 4, 6), draw(1, 16, 1, 6, 4)]}


def _image_to_fill(draw: Draw) -> dict[str, Any]:
    mask = torch.zeros(1, 1, 8 * HEIGHT, 8 * WIDE)
    mask[..., 16:] = 1.0
    return {"concat_latent_image": draw(1, 16, HEIGHT, WIDE), "concat_mask": mask}


def _first_frame(draw: Draw, frames: int) -> dict[str, Any]:
    """What WanImageToVideo and HunyuanImageToVideo say of a start image."""
    mask = torch.ones(1, 1, frames, HEIGHT, WIDE)
    mask[:, :, :1] = 0.0
    return {"concat_latent_image": draw(1, 16, frames, HEIGHT, WIDE), "concat_mask": mask}


def _wan_image(draw: Draw) -> dict[str, Any]:
    seen = SimpleNamespace(penultimate_hidden_states=draw(1, 7, 1280))
    return {**_first_frame(draw, 5), "clip_vision_output": seen}


def _masked_text(draw: Draw) -> dict[str, Any]:
    return {"attention_mask": torch.tensor([[1] * (TOKENS - 2) + [0] * 2])}


WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 64,
    "ffn_dim": 128,
    "freq_dim": 32,
    "text_dim": WIDTH,
    "in_dim": 16,
    "out_dim": 16,
    "num_heads": 2,
    "num_layers": 2,
}
QWEN_IMAGE = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "axes_dims_rope": (8, 12, 12),
}
HUNYUAN_VIDEO = {
    **{name: value for name, value in HUNYUAN.items() if name not in HUNYUAN_UNSET},
    **known_to(HunyuanVideoParams, {name: HUNYUAN[name] for name in HUNYUAN_UNSET}),
    "image_model": "hunyuan_video",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": WIDTH,
    "context_in_dim": WIDTH,
}
FLUX_2 = {
    **FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "qkv_bias": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
}
CHROMA = {
    **known_to(ChromaParams, TINY_CHROMA),
    "image_model": "chroma",
    "in_channels": 64,  # of a 2 x 2 patch
    "out_channels": 64,
    "context_in_dim": WIDTH,
}
LUMINA_2 = {
    "image_model": "lumina2",
    "in_channels": 16,
    "dim": 48,
    "n_layers": 2,
    "n_heads": 3,
    "n_kv_heads": 1,
    "multiple_of": 16,
    "qk_norm": True,
    "cap_feat_dim": WIDTH,
    "axes_dims": [4, 6, 6],
    "axes_lens": [300, 512, 512],
}
LTX_VIDEO = {
    "image_model": "ltxv",
    "in_channels": 128,
    "cross_attention_dim": 32,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "caption_channels": WIDTH,
    "num_layers": 2,
}

OMNIGEN_2 = {
    "image_model": "omnigen2",
    "in_channels": 16,
    "hidden_size": 48,
    "num_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 3,
    "num_kv_heads": 1,
    "multiple_of": 16,
    "axes_dim_rope": (4, 6, 6),
    "timestep_scale": 1000.0,
    "text_feat_dim": WIDTH,
}
JOY_IMAGE = {
    "image_model": "joyimage",
    "in_channels": 16,
    "hidden_size": 128,
    "num_attention_heads": 1,
    "text_dim": WIDTH,
    "num_layers": 1,
}

CASES = (
    NodeCase("Wan", "WAN21_T2V", WAN, (16, 5, HEIGHT, WIDE)),
    NodeCase(
        "Wan image to video",
        "WAN21_I2V",
        {**WAN, "model_type": "i2v", "in_dim": 36},
        (16, 5, HEIGHT, WIDE),
        _wan_image,
    ),
    NodeCase(
        "Wan 2.2 5B with a first frame",
        "WAN22_T2V",
        {**WAN, "in_dim": 48, "out_dim": 48},
        (48, 3, HEIGHT, WIDE),
        first_frame_given=True,
    ),
    NodeCase("Qwen-Image", "QwenImage", QWEN_IMAGE, (16, 1, HEIGHT, WIDE)),
    NodeCase("Qwen-Image-Edit", "QwenImage", QWEN_IMAGE, (16, 1, HEIGHT, WIDE), _video_reference),
    NodeCase(
        "Qwen-Image-Edit-2511",
        "QwenImage",
        {**QWEN_IMAGE, "default_ref_method": "index_timestep_zero"},
        (16, 1, HEIGHT, WIDE),
        _video_reference,
    ),
    NodeCase("FLUX.1 Kontext", "Flux", FLUX, (16, HEIGHT, WIDE), _reference),
    NodeCase(
        "FLUX.1 Fill",
        "FluxInpaint",
        {**FLUX, "in_channels": 96},
        (16, HEIGHT, WIDE),
        _image_to_fill,
    ),
    NodeCase(
        "FLUX.2",
        "Flux2",
        FLUX_2,
        (128, HEIGHT, WIDE),
        lambda draw: {"reference_latents": [draw(1, 128, 2, 4)]},
    ),
    NodeCase("Chroma", "Chroma", CHROMA, (16, HEIGHT, WIDE)),
    NodeCase("HunyuanVideo", "HunyuanVideo", HUNYUAN_VIDEO, (16, 3, HEIGHT, WIDE)),
    NodeCase(
        "HunyuanVideo-I2V",
        "HunyuanVideoI2V",
        {**HUNYUAN_VIDEO, "in_channels": 33, "guidance_embed": False},
        (16, 3, HEIGHT, WIDE),
        lambda draw: {**_first_frame(draw, 3), "guiding_frame_index": 0},
        fails_in_batches=True,
    ),
    NodeCase(
        "Lumina 2",
        "Lumina2",
        LUMINA_2,
        (16, HEIGHT, WIDE),
        _masked_text,
        fails_in_batches=True,
    ),
    NodeCase("LTX-Video", "LTXV", LTX_VIDEO, (128, 3, HEIGHT, WIDE), _masked_text),
)


def make_video_vae() -> comfy.sd.VAE:
    """Wan 2.1's VAE, narrow: 16 channels, 8 x 8 pixels and 4 frames to a latent."""

    def narrow(**config: Any) -> WanVAE:
        return WanVAE(**{**config, "dim": 8})

    vae = narrow(z_dim=16, temperal_downsample=[False, True, True])
    # v0.3.64 does not read the width from the file.
    with mock.patch.object(comfy.ldm.wan.vae, "WanVAE", narrow):
        return comfy.sd.VAE(sd=randomised(vae).state_dict())
