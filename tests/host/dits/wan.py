"""Wan 2.1 and 2.2: text to video, image to video, references, a frame given, frame by frame."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from comfy.ldm.wan.model import WanModel
from torch import Tensor, nn

from ..tiny_models import randomised
from .case import SAMPLES, DitCase

FRAMES, HEIGHT, WIDTH = 3, 4, 6

TINY: dict[str, Any] = {
    "dim": 32,
    "ffn_dim": 64,
    "freq_dim": 16,
    "text_dim": 16,
    "in_dim": 4,
    "out_dim": 4,
    "num_heads": 2,
    "num_layers": 2,
}
SIZES: dict[str, dict[str, Any]] = {
    "1.3B": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    "5B": {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30},
    "14B": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
}
LATENTS = {"in_dim": 16, "out_dim": 16}
LATENTS_AND_IMAGE = {"in_dim": 36, "out_dim": 16}


def make(model: type[nn.Module] = WanModel, **changes: Any) -> nn.Module:
    """A tiny model, its layers casting as ComfyUI's do: the patch embedding computes in float32."""
    return randomised(model(operations=comfy.ops.manual_cast, **{**TINY, **changes}))


def full(size: str, model: type[nn.Module] = WanModel, **changes: Any) -> nn.Module:
    """A published model's shape without memory behind it."""
    config = {"freq_dim": 256, "text_dim": 4096, "device": "meta", **SIZES[size], **changes}
    return make(model, **config)


class Inputs:
    """Fixed random inputs, three samples of each, cut to the rows of a call."""

    def __init__(self, model: nn.Module, rows: slice) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.rows = rows
        self.dtype = next(model.parameters()).dtype

    def __call__(self, *shape: int) -> Tensor:
        """[rows, *shape] in the model's dtype."""
        return torch.randn(SAMPLES, *shape, generator=self.generator)[self.rows].to(self.dtype)

    def timestep(self) -> Tensor:
        return torch.tensor([900.0, 500.0, 100.0])[self.rows]

    def clip(self) -> Tensor:
        """What a CLIP vision tower says of an image."""
        return self(5, 1280)


def denoise(model: nn.Module, inputs: Inputs, **conditions: Any) -> Tensor:
    """One call as comfy/model_base.py makes it; the model takes as many channels as it has."""
    arguments = {
        "x": inputs(int(model.in_dim), FRAMES, HEIGHT, WIDTH),
        "timestep": inputs.timestep(),
        "context": inputs(6, 16),
        "transformer_options": {},
        **conditions,
    }
    output: Tensor = model(**arguments)
    return output


def text_to_video(model: nn.Module, rows: slice) -> Tensor:
    return denoise(model, Inputs(model, rows))


def image_to_video(model: nn.Module, rows: slice) -> Tensor:
    """The image's latents are channels of `x`; Fun models have a reference and frames behind."""
    inputs = Inputs(model, rows)
    behind = inputs(int(model.in_dim), 1, HEIGHT, WIDTH)
    return denoise(
        model,
        inputs,
        clip_fea=inputs.clip(),
        reference_latent=inputs(4, HEIGHT, WIDTH),
        time_dim_concat=behind,
    )


def in_context(model: nn.Module, rows: slice) -> Tensor:
    """Reference latents behind the frames, with positions of their own."""
    inputs = Inputs(model, rows)
    references = [inputs(4, 1, HEIGHT, WIDTH), inputs(4, 2, HEIGHT, HEIGHT)]
    return denoise(model, inputs, context_latents=references)


def first_frame_given(model: nn.Module, rows: slice) -> Tensor:
    """Every frame has a timestep, the given one 0."""
    inputs = Inputs(model, rows)
    timestep = inputs.timestep()[:, None] * torch.tensor([0.0, 1.0, 1.0])
    return denoise(model, inputs, timestep=timestep)


def make_causal() -> nn.Module:
    from comfy.ldm.wan.ar_model import CausalWanModel

    return make(CausalWanModel)


def frame_by_frame(model: Any, rows: slice) -> Tensor:
    """Two calls that share their keys and values, as samplers of autoregressive models make."""
    inputs = Inputs(model, rows)
    context, samples = inputs(6, 16), len(inputs.timestep())
    tokens = 2 * HEIGHT * WIDTH // 4
    state = {
        "kv_caches": model.init_kv_caches(samples, tokens, "cpu", inputs.dtype),
        "crossattn_caches": model.init_crossattn_caches(samples, "cpu", inputs.dtype),
    }
    frames = []
    for frame in range(2):
        x = inputs(4, 1, HEIGHT, WIDTH)
        options = {"ar_state": {**state, "start_frame": frame}}
        frames.append(denoise(model, inputs, x=x, context=context, transformer_options=options))
    return torch.cat(frames, dim=2)


CASES = (
    DitCase(
        name="Wan",
        family="wan",
        make=make,
        call=text_to_video,
        sizes={
            "Wan2.1-T2V-1.3B": lambda: full("1.3B", **LATENTS),
            "Wan2.1-T2V-14B": lambda: full("14B", **LATENTS),
        },
        also=("Wan2.2-T2V-A14B", "Wan2.2-I2V-A14B", "FlowRVS"),
    ),
    DitCase(
        name="Wan image to video",
        family="wan",
        make=lambda: make(
            model_type="i2v", in_dim=9, in_dim_ref_conv=4, flf_pos_embed_token_number=5
        ),
        call=image_to_video,
        sizes={"Wan2.1-I2V-14B": lambda: full("14B", model_type="i2v", **LATENTS_AND_IMAGE)},
        also=("Wan2.1-FLF2V-14B", "Wan2.1-Fun-Control"),
    ),
    DitCase(
        name="Wan with a first frame",
        family="wan",
        make=make,
        call=first_frame_given,
        sizes={"Wan2.2-TI2V-5B": lambda: full("5B", in_dim=48, out_dim=48)},
    ),
    DitCase(name="Wan with references in context", family="wan", make=make, call=in_context),
    DitCase(
        name="Wan frame by frame",
        family="wan",
        make=make_causal,
        call=frame_by_frame,
        sizes={"Causal Forcing 1.3B": lambda: full("1.3B", **LATENTS)},
    ),
)
