"""LTX-Video and LTX-2."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.lightricks.model import LTXVModel
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

FRAMES = 3
SIZE = 4  # of a latent frame: 16 tokens
AUDIO_FRAMES = 5
CAPTION = 12  # channels of the text


def make_ltx_video(**changes: Any) -> nn.Module:
    """LTX-Video: two blocks of width 32."""
    config: dict[str, Any] = {
        "in_channels": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "caption_channels": CAPTION,
        "num_layers": 2,
        "causal_temporal_positioning": True,
    }
    return randomised(LTXVModel(operations=OPERATIONS, **{**config, **changes}))


def make_ltx_2(**changes: Any) -> nn.Module:
    """LTX-2: two blocks, video of width 32 and audio of width 16."""
    from comfy.ldm.lightricks.av_model import LTXAVModel  # not in v0.3.64

    config: dict[str, Any] = {
        "in_channels": 8,
        "cross_attention_dim": 32,
        "audio_cross_attention_dim": 16,
        "attention_head_dim": 16,
        "audio_attention_head_dim": 8,
        "num_attention_heads": 2,
        "audio_num_attention_heads": 2,
        "caption_channels": CAPTION,
        "num_layers": 2,
        "causal_temporal_positioning": True,
        "use_middle_indices_grid": True,
        "rope_type": "split",
        "connector_attention_head_dim": 4,
        "connector_num_attention_heads": 3,
        "connector_num_layers": 1,
    }
    return randomised(LTXAVModel(operations=OPERATIONS, **{**config, **changes}))


def make_ltx_2_at_full_size() -> nn.Module:
    from comfy.ldm.lightricks.av_model import LTXAVModel

    return randomised(LTXAVModel(device="meta", operations=OPERATIONS))


def make_ltx_2_3() -> nn.Module:
    """LTX-2.3: gates on the heads and on the attention to the text, which comes projected."""
    return make_ltx_2(
        cross_attention_adaln=True,
        apply_gated_attention=True,
        connector_apply_gated_attention=True,
        caption_proj_before_connector=True,
    )


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(seed))


def call_ltx_video(model: nn.Module, rows: slice) -> Tensor:
    dtype = next(model.parameters()).dtype
    x, context = noise(1, 8, FRAMES, SIZE, SIZE), noise(2, 6, CAPTION)
    timestep = torch.tensor([0.9, 0.5, 0.1])
    output: Tensor = model(
        x[rows].to(dtype), timestep[rows], context[rows].to(dtype), attention_mask=None
    )
    return output


def call_image_to_video(model: nn.Module, rows: slice) -> Tensor:
    """The first frame is given: a timestep per token, 0 in that frame."""
    dtype = next(model.parameters()).dtype
    x, context = noise(1, 8, FRAMES, SIZE, SIZE), noise(2, 6, CAPTION)
    timestep = torch.tensor([0.9, 0.5, 0.1])[:, None].repeat(1, FRAMES * SIZE * SIZE)
    timestep[:, : SIZE * SIZE] = 0.0
    mask = torch.ones(SAMPLES, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    output: Tensor = model(
        x[rows].to(dtype),
        timestep[rows, :, None],
        context[rows].to(dtype),
        attention_mask=mask[rows],
    )
    return output


def call_ltx_2(model: nn.Module, rows: slice) -> Tensor:
    """Video and audio, one after the other in one vector per sample."""
    dtype = next(model.parameters()).dtype
    latents = [noise(1, 8, FRAMES, SIZE, SIZE), noise(3, 8, AUDIO_FRAMES, 16)]
    projected = bool(model.caption_proj_before_connector)
    context = noise(2, 6, 32 + 16 if projected else 2 * CAPTION)
    # The gates between video and audio come from the highest timestep of the whole batch: as in
    # ComfyUI's samplers, all samples are at the same one.
    timestep = torch.full((SAMPLES,), 0.6)[rows]
    video, audio = model(
        [latent[rows].to(dtype) for latent in latents],
        (timestep, timestep),
        context[rows].to(dtype),
        attention_mask=None,
    )
    return torch.cat([video.flatten(1), audio.flatten(1)], dim=1)


CASES = (
    DitCase(
        name="LTX-Video",
        family="ltx-video",
        make=make_ltx_video,
        call=call_ltx_video,
        sizes={
            "LTX-Video 2B": lambda: randomised(LTXVModel(device="meta", operations=OPERATIONS)),
            "LTX-Video 13B": lambda: randomised(
                LTXVModel(
                    device="meta",
                    operations=OPERATIONS,
                    attention_head_dim=128,
                    cross_attention_dim=4096,
                    num_layers=48,
                )
            ),
        },
    ),
    DitCase(
        name="LTX-Video image-to-video",
        family="ltx-video",
        make=make_ltx_video,
        call=call_image_to_video,
    ),
    DitCase(
        name="LTX-2",
        family="ltx-2",
        make=make_ltx_2,
        call=call_ltx_2,
        sizes={"LTX-2 19B": make_ltx_2_at_full_size},
        note="video and audio",
    ),
    DitCase(name="LTX-2.3", family="ltx-2", make=make_ltx_2_3, call=call_ltx_2),
)
