"""FLUX.1 with more inputs, and the models built from its blocks."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from comfy.ldm.chroma.model import Chroma, ChromaParams
from comfy.ldm.chroma_radiance.model import ChromaRadiance, ChromaRadianceParams
from comfy.ldm.flux.model import FluxParams
from torch import Tensor, nn

from ..tiny_models import FLUX_BLOCKS, OPERATIONS, make_flux, randomised
from .case import DitCase


def make_kin(**changes: Any) -> nn.Module:
    """A model of ComfyUI's Flux class with fields that FLUX.1 does not set."""
    unknown = [name for name in changes if name not in (*FluxParams.__dataclass_fields__, "device")]
    if unknown:
        raise ImportError(f"no {', '.join(unknown)}")
    return make_flux(guidance_embed=False, **changes)


def make_flux2(**changes: Any) -> nn.Module:
    config: dict[str, Any] = {
        "vec_in_dim": None,
        "axes_dim": [8, 8, 8, 8],
        "mlp_ratio": 3.0,
        "theta": 2000,
        "patch_size": 1,
        "qkv_bias": False,
        "txt_ids_dims": [3],
        "global_modulation": True,
        "mlp_silu_act": True,
        "ops_bias": False,
        "default_ref_method": "index",
        "ref_index_scale": 10.0,
    }
    return make_kin(**{**config, **changes})


def make_longcat(**changes: Any) -> nn.Module:
    return make_kin(vec_in_dim=None, txt_ids_dims=[1, 2], **changes)


def make_ovis(**changes: Any) -> nn.Module:
    return make_kin(vec_in_dim=None, txt_ids_dims=[1, 2], yak_mlp=True, txt_norm=True, **changes)


CHROMA = {
    **FLUX_BLOCKS,
    "in_channels": 16,
    "out_channels": 16,
    "theta": 10_000,
    "patch_size": 2,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 48,
    "n_layers": 2,
    "txt_ids_dims": [],
    "vec_in_dim": None,
}


def known_to(params: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that this ComfyUI's class takes."""
    known = (*params.__dataclass_fields__, "device")
    return {name: value for name, value in config.items() if name in known}


def make_chroma(**changes: Any) -> nn.Module:
    config = known_to(ChromaParams, {**CHROMA, **changes})
    return randomised(Chroma(operations=OPERATIONS, **config))


def make_radiance(**changes: Any) -> nn.Module:
    """Chroma on pixels, with NeRF blocks behind; it predicts the clean image."""
    config: dict[str, Any] = {
        **CHROMA,
        "in_channels": 3,
        "out_channels": 3,
        "patch_size": 4,
        "nerf_hidden_size": 8,
        "nerf_mlp_ratio": 2,
        "nerf_depth": 2,
        "nerf_max_freqs": 4,
        "nerf_tile_size": 0,
        "nerf_final_head_type": "conv",
        "nerf_embedder_dtype": torch.float32,
        "use_x0": True,
        "use_sequential_txt_ids": True,
        **changes,
    }
    config = known_to(ChromaRadianceParams, config)
    # The embedder stays in float32 whatever the weights' type is: these layers cast.
    return randomised(ChromaRadiance(operations=comfy.ops.manual_cast, **config))


def call(
    model: nn.Module,
    rows: slice,
    *,
    channels: int = 4,
    side: int = 8,
    references: str | None = None,
    pooled: bool = False,
) -> Tensor:
    """Latents [rows, channels, side, side], with two references of other sizes than theirs if a
    method to place them is given.
    """
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator)[rows].to(dtype)

    latents, context = draw(channels, side, side), draw(5, 16)
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    arguments: dict[str, Any] = {"guidance": torch.full_like(timestep, 3.5)}
    if pooled:
        arguments["y"] = draw(24)
    if references is not None:
        arguments["ref_latents"] = [draw(4, 4, 6), draw(4, 6, 4)]
        arguments["ref_latents_method"] = references
    output: Tensor = model(latents, timestep, context, **arguments)
    return output


FLUX_WIDTH = {"device": "meta", "hidden_size": 3072, "num_heads": 24, "axes_dim": [16, 56, 56]}
FLUX_DEPTH = {"depth": 19, "depth_single_blocks": 38}
FLUX_2_AXES = {"device": "meta", "axes_dim": [32, 32, 32, 32], "in_channels": 128}
CHROMA_FULL = {**FLUX_WIDTH, **FLUX_DEPTH, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5}

CASES = (
    DitCase(
        name="FLUX.1 Kontext",
        family="flux",
        make=make_flux,
        call=lambda model, rows: call(model, rows, references="offset", pooled=True),
    ),
    DitCase(
        name="FLUX.1 Fill",
        family="flux",
        # Latents, the masked image's, and the mask: twelve channels in, four out.
        make=lambda: make_flux(in_channels=12),
        call=lambda model, rows: call(model, rows, channels=12, pooled=True),
    ),
    DitCase(
        name="FLUX.2",
        family="flux2",
        make=make_flux2,
        call=lambda model, rows: call(model, rows, side=4),
        sizes={
            "FLUX.2 [dev]": lambda: make_flux2(
                **FLUX_2_AXES,
                hidden_size=6144,
                num_heads=48,
                depth=8,
                depth_single_blocks=48,
                context_in_dim=15360,
            ),
            "FLUX.2 [klein] 9B": lambda: make_flux2(
                **FLUX_2_AXES,
                hidden_size=4096,
                num_heads=32,
                depth=8,
                depth_single_blocks=24,
                context_in_dim=12288,
            ),
            "FLUX.2 [klein] 4B": lambda: make_flux2(
                **FLUX_2_AXES,
                hidden_size=3072,
                num_heads=24,
                depth=5,
                depth_single_blocks=20,
                context_in_dim=7680,
            ),
        },
    ),
    DitCase(
        name="FLUX.2 with references",
        family="flux2",
        make=make_flux2,
        call=lambda model, rows: call(model, rows, side=4, references="index"),
    ),
    DitCase(
        name="FLUX.2 with references at timestep zero",
        family="flux2",
        make=make_flux2,
        call=lambda model, rows: call(model, rows, side=4, references="index_timestep_zero"),
    ),
    DitCase(
        name="Chroma",
        family="chroma",
        make=make_chroma,
        call=call,
        sizes={"Chroma1-HD": lambda: make_chroma(**CHROMA_FULL)},
        also=("Chroma1-Base", "Chroma1-Flash"),
    ),
    DitCase(
        name="Chroma1-Radiance",
        family="chroma",
        make=make_radiance,
        call=lambda model, rows: call(model, rows, channels=3),
        sizes={"Chroma1-Radiance": lambda: make_radiance(**CHROMA_FULL)},
        note="the NeRF blocks that paint its pixels are no DiT blocks and have no coefficients",
    ),
    DitCase(
        name="LongCat-Image",
        family="longcat-image",
        make=make_longcat,
        call=call,
        sizes={
            "LongCat-Image": lambda: make_longcat(
                **FLUX_WIDTH, depth=10, depth_single_blocks=20, context_in_dim=3584, in_channels=16
            )
        },
        also=("LongCat-Image-Edit",),
    ),
    DitCase(
        name="Ovis-Image",
        family="ovis-image",
        make=make_ovis,
        call=call,
        sizes={
            "Ovis-Image-7B": lambda: make_ovis(
                **FLUX_WIDTH, depth=6, depth_single_blocks=27, context_in_dim=2048, in_channels=16
            )
        },
    ),
)
