"""Tiny worlds for `comfyui-calibri train`: pictures, a VAE of diffusers, options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from comfyui_calibri.cli import app

SIDE = 32
QUICK = ["--cpu", "--steps", "3", "--batch", "4", "--warm-up", "0", "--ema", "0.5", "--width", "4"]
DEMO = [*QUICK, "--demo", "--pictures", "6", "--double-blocks", "1", "--single-blocks", "2"]
SIT = [
    *QUICK,
    *("--size", str(SIDE), "--hidden", "32", "--depth", "3", "--heads", "2"),
]


def train(*options: object) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["train", *map(str, options)])


def pictures(folder: Path, names: list[str], side: int = 40) -> Path:
    """Pictures of noise, side + 4 by side."""
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (side, side + 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def classes(folder: Path) -> Path:
    """Two classes of three pictures."""
    return pictures(folder, [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3)])


def vae(folder: Path, channels: int = 4, seed: int = 0) -> Path:
    """An AutoencoderKL of four stages, as diffusers saves it; it makes pictures 8 times smaller."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=2.0,
    ).save_pretrained(folder)
    return folder
