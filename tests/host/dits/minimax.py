"""MiniMax H3."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from torch import Tensor, nn

from ..tiny_models import randomised
from .case import SAMPLES, DitCase

WIDTH = 32
VIDEO = (24, 2, 4, 4)  # a sample's video: channels, frames, height, width
AUDIO = (32, 2, 3)  # its sound: channels, left and right, frames


def make(**changes: Any) -> nn.Module:
    """MiniMax H3: two blocks of width 32."""
    from comfy.ldm.minimax.model import MiniMaxH3Model  # not in v0.3.64

    config: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_layers": 2,
        "token_refiner_num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "ffn_hidden_size": 48,
        "text_dim": 12,
        "timestep_input_dim": 16,
        "time_embed_hidden_size": 24,
        "time_embed_dim": 20,
        "rope_inv_freq_len": 2,
    }
    # Its first and last layers stay in float32 whatever the others' type: they cast.
    return randomised(MiniMaxH3Model(operations=comfy.ops.manual_cast, **{**config, **changes}))


def at_full_size() -> nn.Module:
    from comfy.ldm.minimax.model import MiniMaxH3Model

    with torch.device("meta"):
        return randomised(MiniMaxH3Model(operations=comfy.ops.manual_cast, device="meta"))


def call(model: nn.Module, rows: slice) -> Tensor:
    return denoise(model, rows, lambda frame: {})


def call_with_first_frame(model: nn.Module, rows: slice) -> Tensor:
    """The first frame's latents are rows of their own before the video's."""

    def payload(frame: Tensor) -> dict[str, Any]:
        keyframe = {"resolved_frame_index": 0, "latent": frame}
        return {"keyframes": [keyframe], "cond_video_latents": [frame]}

    # A checkpoint's table of the time embedding stays in float32 too.
    model.adaln_t_table = model.adaln_t_table.float()
    return denoise(model, rows, payload)


def denoise(model: nn.Module, rows: slice, payload: Any) -> Tensor:
    """The samples one by one: the model takes no more. Video and audio in one vector for each."""
    generator = torch.Generator().manual_seed(1)
    dtype = model.blocks[0].attn.out_proj.weight.dtype
    video, audio, text, frame = (
        torch.randn(SAMPLES, 1, *shape, generator=generator)
        for shape in (VIDEO, AUDIO, (5, WIDTH), (VIDEO[0], 1, *VIDEO[2:]))
    )
    outputs = []
    for i in range(SAMPLES)[rows]:
        output = model(
            [video[i].to(dtype), audio[i].to(dtype)],
            torch.tensor([(900.0, 500.0, 100.0)[i]]),
            text[i].to(dtype),
            minimax_payload=payload(frame[i]),
        )
        outputs.append(torch.cat([stream.flatten(1) for stream in output], dim=1))
    return torch.cat(outputs)


CASES = (
    DitCase(
        name="MiniMax H3",
        family="minimax-h3",
        make=make,
        call=call,
        sizes={"MiniMax H3": at_full_size},
        one_gain_for_all="the model takes one sample",
        note="video and audio",
    ),
    DitCase(
        name="MiniMax H3 with a first frame",
        family="minimax-h3",
        make=lambda: make(adaln_curve_grid=9, time_embed_dim=6),
        call=call_with_first_frame,
        one_gain_for_all="the model takes one sample",
    ),
)
