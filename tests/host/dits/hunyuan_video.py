"""HunyuanVideo and 1.5, text and image to video, and HunyuanImage 2.1 with its refiner."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideo, HunyuanVideoParams
from torch import Tensor, nn

from ..tiny_models import FLUX_BLOCKS, OPERATIONS, randomised
from .case import DitCase

BASE = {
    **FLUX_BLOCKS,
    "in_channels": 4,
    "out_channels": 4,
    "vec_in_dim": 24,
    "theta": 256,
    "patch_size": [1, 2, 2],
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
# Fields that v0.3.64 does not have, and does not need as they are above.
UNSET = {"byt5", "meanflow", "use_cond_type_embedding", "vision_in_dim", "meanflow_sum"}


def make(**changes: Any) -> nn.Module:
    """HunyuanVideo with two blocks of each kind."""
    known = HunyuanVideoParams.__dataclass_fields__
    unknown = [name for name in changes if name not in (*known, "device")]
    if unknown:
        raise ImportError(f"no {', '.join(unknown)}")
    base = {name: value for name, value in BASE.items() if name in known or name not in UNSET}
    return randomised(HunyuanVideo(operations=OPERATIONS, **{**base, **changes}))


def make_i2v() -> nn.Module:
    """Its channels hold the latents, the first frame's, and a mask."""
    if "use_cond_type_embedding" not in HunyuanVideoParams.__dataclass_fields__:
        raise ImportError("a first frame for several samples in one call")  # v0.3.64: for one only
    # With a guidance embedding, ComfyUI can add it to one sample's two timesteps only.
    return make(in_channels=9, guidance_embed=False)


def make_image(**changes: Any) -> nn.Module:
    """HunyuanImage 2.1, distilled: it is told the next timestep as well."""
    config: dict[str, Any] = {
        "vec_in_dim": None,
        "axes_dim": [16, 16],
        "patch_size": [1, 1],
        "byt5": True,
        "meanflow": True,
    }
    return make(**{**config, **changes})


def make_image_refiner(**changes: Any) -> nn.Module:
    config = {"vec_in_dim": None, "patch_size": [1, 1, 1], "in_channels": 8, "meanflow": True}
    return make(**{**config, **changes})


def make_15(**changes: Any) -> nn.Module:
    """HunyuanVideo 1.5; its channels hold the latents, an image's, and a mask."""
    config: dict[str, Any] = {
        "in_channels": 9,
        "vec_in_dim": None,
        "patch_size": [1, 1, 1],
        "depth": 3,
        "depth_single_blocks": 0,
        "guidance_embed": False,
        "byt5": True,
        "use_cond_type_embedding": True,
        "vision_in_dim": 12,
        "meanflow_sum": True,
    }
    return make(**{**config, **changes})


def call(
    model: nn.Module,
    rows: slice,
    *,
    size: tuple[int, ...] = (2, 4, 4),
    pooled: bool = True,
    guidance: bool = True,
    first_frame: bool = False,
    byt5: bool = False,
    vision: bool = False,
    **arguments: Any,
) -> Tensor:
    """Latents [rows, the model's channels, *size] and the conditions that its release takes."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator)[rows].to(dtype)

    sigmas = torch.tensor([0.9, 0.5, 0.1])
    latents, context = draw(model.in_channels, *size), draw(5, 16)  # type: ignore[operator]
    timestep = 1000.0 * sigmas[rows]
    if pooled:
        arguments["y"] = draw(24)
    if guidance:
        arguments["guidance"] = torch.full_like(timestep, 6.0).to(dtype)
    if first_frame:
        arguments["guiding_frame_index"] = torch.zeros_like(timestep).to(dtype)
    if byt5:
        arguments["txt_byt5"] = draw(3, 1472)
    if vision:
        arguments["clip_fea"] = draw(4, 12)
    options = {"sigmas": sigmas[:1], "sample_sigmas": sigmas}
    output: Tensor = model(latents, timestep, context, transformer_options=options, **arguments)
    return output


VIDEO_FULL: dict[str, Any] = {
    "device": "meta",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "num_heads": 24,
    "depth": 20,
    "depth_single_blocks": 40,
    "axes_dim": [16, 56, 56],
}
IMAGE_FULL: dict[str, Any] = {
    **VIDEO_FULL,
    "in_channels": 64,
    "out_channels": 64,
    "vec_in_dim": None,
    "context_in_dim": 3584,
}

CASES = (
    DitCase(
        name="HunyuanVideo",
        family="hunyuan-video",
        make=make,
        call=call,
        sizes={"HunyuanVideo": lambda: make(**VIDEO_FULL)},
        also=("HunyuanVideo-I2V", "SkyReels V1", "HunyuanCustom"),
    ),
    DitCase(
        name="HunyuanVideo-I2V",
        family="hunyuan-video",
        make=make_i2v,
        call=lambda model, rows: call(model, rows, guidance=False, first_frame=True),
        note="the first frame passes as another timestep, under the same coefficients",
    ),
    DitCase(
        name="HunyuanVideo-1.5",
        family="hunyuan-video-1.5",
        make=make_15,
        call=lambda model, rows: call(
            model, rows, pooled=False, guidance=False, byt5=True, vision=True
        ),
        sizes={
            "HunyuanVideo-1.5": lambda: make_15(
                **{
                    **VIDEO_FULL,
                    "in_channels": 65,
                    "out_channels": 32,
                    "vec_in_dim": None,
                    "context_in_dim": 3584,
                    "hidden_size": 2048,
                    "num_heads": 16,
                    "depth": 54,
                    "depth_single_blocks": 0,
                    "vision_in_dim": 1152,
                }
            )
        },
        also=("HunyuanVideo-1.5 I2V",),
    ),
    DitCase(
        name="HunyuanVideo-1.5 SR",
        family="hunyuan-video-1.5",
        make=lambda: make_15(in_channels=14, meanflow=True),
        call=lambda model, rows: call(
            model, rows, pooled=False, guidance=False, byt5=True, vision=True, disable_time_r=False
        ),
    ),
    DitCase(
        name="HunyuanImage-2.1",
        family="hunyuan-image",
        make=make_image,
        call=lambda model, rows: call(model, rows, size=(4, 4), pooled=False, byt5=True),
        sizes={
            "HunyuanImage-2.1": lambda: make_image(
                **{**IMAGE_FULL, "hidden_size": 3584, "num_heads": 28, "axes_dim": [64, 64]}
            )
        },
        also=("HunyuanImage-2.1-Distilled",),
    ),
    DitCase(
        name="HunyuanImage-2.1 refiner",
        family="hunyuan-image-refiner",
        make=make_image_refiner,
        call=lambda model, rows: call(model, rows, pooled=False, disable_time_r=True),
        sizes={
            "HunyuanImage-2.1 refiner": lambda: make_image_refiner(
                **{**IMAGE_FULL, "in_channels": 128, "hidden_size": 3328, "num_heads": 26}
            )
        },
    ),
)
