"""Levels of ComfyUI's real encoder classes: which blocks, at which resolution, in which group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
from comfy.ldm.modules.diffusionmodules.model import Encoder
from comfy.ldm.wan.vae import WanVAE
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file
from torch import Tensor, nn

from comfyui_calibri.ahpa.autoencoder import load_vae
from comfyui_calibri.ahpa.features import FeatureReader
from comfyui_calibri.ahpa.levels import DEEP, MIDDLE, SHALLOW, read_levels
from comfyui_calibri.ahpa.targets import encoder_mark
from comfyui_calibri.nodes.ahpa_targets import encoder_of

from .tiny_models import randomised
from .tiny_patchers import make_vae

pytestmark = pytest.mark.oldest

SIDE = 32


def autoencoder_kl() -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """SD3's and FLUX's shape, narrow."""
    encoder = Encoder(
        ch=32,
        out_ch=3,
        ch_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        attn_resolutions=[],
        in_channels=3,
        resolution=SIDE,
        z_channels=16,
    )
    return randomised(encoder), encoder


def wan() -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """Wan 2.1's and Qwen-Image's."""
    vae = randomised(WanVAE(dim=8, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2))
    return vae.encoder, lambda pictures: vae.encode(pictures[:, :, None])


def taesd() -> tuple[nn.Module, Callable[[Tensor], Any]]:
    model = randomised(TAESD(latent_channels=16))
    return model.taesd_encoder, model.encode


@pytest.mark.parametrize(
    ("make", "count"), [(autoencoder_kl, 10), (wan, 10), (taesd, 10)], ids=["kl", "wan", "taesd"]
)
def test_a_stage_halves_the_picture_and_the_groups_are_in_their_order(
    make: Callable[[], tuple[nn.Module, Callable[[Tensor], Any]]], count: int
) -> None:
    encoder, encode = make()
    levels = read_levels(encoder)
    assert len(levels) == count
    assert [level.stage for level in levels] == sorted(level.stage for level in levels)
    assert {level.stage: level.group for level in levels} == {
        0: SHALLOW,
        1: SHALLOW,
        2: MIDDLE,
        3: DEEP,
    }
    sizes: list[int] = []
    for level in levels:
        encoder.get_submodule(level.module).register_forward_hook(
            lambda _module, _inputs, output: sizes.append(output.shape[-1])
        )
    pictures = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        features = FeatureReader(encoder, levels, encode).read(pictures, (4, 4))
    assert sizes == [SIDE // 2**level.stage for level in levels]
    assert all(level.shape[:2] == (1, 16) and level.isfinite().all() for level in features)


def test_a_loaded_vae_shows_its_encoder_and_its_own_encoding_runs_it() -> None:
    vae = make_vae()
    encoder = encoder_of(vae)
    levels = read_levels(encoder)[-2:]
    features = FeatureReader(encoder, levels, vae.encode).read(torch.rand(1, 64, 64, 3), (4, 4))
    assert [level.shape for level in features] == [(1, 16, 64)] * 2
    assert encoder_mark(encoder, levels) == encoder_mark(encoder_of(make_vae()), levels)


SIZES = {
    "ch": 32,
    "out_ch": 3,
    "ch_mult": (1, 2, 4, 4),
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "in_channels": 3,
    "resolution": SIDE,
    "dropout": 0.0,
}


def flux_vae() -> nn.Module:
    """As ComfyUI builds SD3's and FLUX's, narrow."""
    sizes = {"double_z": True, "z_channels": 16, **SIZES}
    parts = {
        f"{part.lower()}_config": {
            "target": f"comfy.ldm.modules.diffusionmodules.model.{part}",
            "params": sizes,
        }
        for part in ("Encoder", "Decoder")
    }
    regularizer = "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"
    return AutoencodingEngine(regularizer_config={"target": regularizer}, **parts)


def sd_vae() -> nn.Module:
    """SD 1.x's and SDXL's: with convolutions around the latents."""
    return AutoencoderKL(ddconfig={"double_z": True, "z_channels": 4, **SIZES}, embed_dim=4)


@pytest.mark.parametrize(
    ("make", "prefix", "channels"),
    [(flux_vae, "", 16), (sd_vae, "", 4), (sd_vae, "first_stage_model.", 4)],
    ids=["flux", "sd", "checkpoint"],
)
def test_a_file_of_a_vae_without_comfyui_is_what_comfyui_makes_of_it(
    make: Callable[[], nn.Module], prefix: str, channels: int, tmp_path: Path
) -> None:
    theirs: Any = randomised(make()).eval()
    held = {f"{prefix}{n}": v.contiguous() for n, v in theirs.state_dict().items()}
    save_file(held, tmp_path / "vae.safetensors")
    ours = load_vae(tmp_path / "vae.safetensors")
    assert (ours.channels, ours.factor, ours.scaling) == (channels, 8, None)
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = theirs.encode(2 * pictures - 1)
        restored = (theirs.decode(latents) / 2 + 0.5).clamp(0, 1)
    levels = read_levels(theirs.encoder)
    seen = FeatureReader(theirs.encoder, levels, theirs.encode).read(2 * pictures - 1, (4, 4))
    own = read_levels(ours.encoder)
    assert [level.stage for level in own] == [level.stage for level in levels]
    found = FeatureReader(ours.encoder, own, ours.encode).read(pictures, (4, 4))
    with torch.no_grad():
        mine = ours.encode(pictures)
        back = ours.decode(mine)
    for first, second in zip([mine, back, *found], [latents, restored, *seen], strict=True):
        scale = float(second.abs().max())
        torch.testing.assert_close(first, second, rtol=0, atol=1e-4 * scale)
