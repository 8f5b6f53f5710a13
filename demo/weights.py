"""The demo's files: where they lie, and how a model becomes one that ComfyUI's loaders read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .autoencoder import Autoencoder
from .model import Flux
from .reward import Detector
from .text_encoder import TextEncoder

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS = Path(__file__).parent / "weights"
"""One folder a kind, named as ComfyUI's own model folders."""

DIT = "diffusion_models/calibri-demo-dit.safetensors"
VAE = "vae/calibri-demo-vae.safetensors"
TEXT_ENCODER = "text_encoders/calibri-demo-text-encoder.safetensors"
REWARD = "reward/calibri-demo-reward.safetensors"


def save_dit(model: Flux, folder: Path) -> None:
    """Write what the stock UNETLoader detects as a FLUX.1-schnell."""
    _save(model.state_dict(), folder / DIT)


def save_autoencoder(model: Autoencoder, folder: Path) -> None:
    """Write what the stock VAELoader detects as a 16-channel TAESD."""
    _save(model.state_dict(), folder / VAE)


def save_text_encoder(model: TextEncoder, folder: Path) -> None:
    """Write what our own Load Demo Text Encoder reads."""
    _save(model.state_dict(), folder / TEXT_ENCODER)


def save_reward(model: Detector, folder: Path) -> None:
    """Write what `DemoReward.load` reads."""
    _save(model.state_dict(), folder / REWARD)


def load_into(model: Model, file: str, folder: Path = WEIGHTS) -> Model:
    """Fill `model` in fp32 from one of the files above; returns it in eval mode."""
    model.load_state_dict({key: value.float() for key, value in load_file(folder / file).items()})
    model.eval().requires_grad_(False)
    return model


def _save(state: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    half = {
        key: value.detach().to("cpu", torch.float16).contiguous() for key, value in state.items()
    }
    save_file(half, temporary, metadata={"format": "pt", "licence": "Apache-2.0"})
    os.replace(temporary, path)
