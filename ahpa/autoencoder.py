"""A VAE without ComfyUI: diffusers' AutoencoderKL, from a folder of its own or from one file.

Files are those of ComfyUI's models/vae in the shape of SD 1.x, SDXL, SD3 and FLUX, or whole
checkpoints that hold one; their configuration is read off the weights. Nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

_LDM = ("first_stage_model.", "vae.", "")  # before a VAE's names in checkpoints, and in its own


class VAEError(ValueError):
    """The file or folder holds no VAE that can be used here."""


@dataclass(frozen=True)
class Scaling:
    """What a model sees is (latent − shift) · scale."""

    scale: float
    shift: float = 0.0


@dataclass(frozen=True)
class VAE:
    """Pictures [B, 3, H, W] in 0…1 ↔ latents [B, channels, H / factor, W / factor]."""

    module: nn.Module  # encoder and decoder
    encoder: nn.Module  # whose levels are read
    channels: int
    factor: int
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    scaling: Scaling | None  # None where the VAE does not say it


def load_vae(path: Path) -> VAE:
    """From a diffusers folder (config.json with weights) or a .safetensors file.

    Raises VAEError in one sentence, also where diffusers is not there.
    """
    kind: Any
    try:
        from diffusers import AutoencoderKL as kind
    except ImportError as error:
        raise VAEError(
            f"diffusers, which reads VAEs, cannot be imported ({error}): "
            "pip install 'comfyui-calibri[train]'."
        ) from error
    try:
        if path.is_dir():
            model = kind.from_pretrained(path, local_files_only=True)
        else:
            model = _from_file(path)
    except VAEError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VAEError(
            f"{path} holds no AutoencoderKL that can be read ({first}): give a VAE of SD, SDXL, SD3"
            " or FLUX as a .safetensors file, or a diffusers folder of one."
        ) from error
    model = model.float().eval().requires_grad_(False)
    config: Any = model.config
    scaling = None
    if path.is_dir() and config.scaling_factor:
        scaling = Scaling(float(config.scaling_factor), float(config.shift_factor or 0.0))

    def encode(pictures: Tensor) -> Tensor:
        out: Tensor = model.encode(2 * pictures - 1).latent_dist.mode()
        return out

    def decode(latents: Tensor) -> Tensor:
        out: Tensor = model.decode(latents).sample
        return (out / 2 + 0.5).clamp(0, 1)

    return VAE(
        model,
        model.encoder,
        int(config.latent_channels),
        2 ** (len(config.block_out_channels) - 1),
        encode,
        decode,
        scaling,
    )


def _from_file(path: Path) -> Any:
    """By diffusers' own conversion, with a configuration from the weights' shapes."""
    from diffusers import AutoencoderKL

    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    with tempfile.TemporaryDirectory() as folder:
        told = {"_class_name": "AutoencoderKL", **configuration(shapes)}
        (Path(folder) / "config.json").write_text(json.dumps(told), encoding="utf-8")
        return AutoencoderKL.from_single_file(str(path), config=folder, local_files_only=True)


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """AutoencoderKL's, from the shapes of the tensors of a file with the original names.

    Raises VAEError where these are no encoder's.
    """
    for prefix in _LDM:
        if f"{prefix}encoder.down.0.block.0.conv1.weight" in shapes:
            break
    else:
        raise VAEError(
            "The file has no AutoencoderKL's encoder (encoder.down.0.block.0 …): give a VAE of SD, "
            "SDXL, SD3 or FLUX, or a diffusers folder."
        )
    held = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
    widths: list[int] = []
    while f"encoder.down.{len(widths)}.block.0.conv2.weight" in held:
        widths.append(held[f"encoder.down.{len(widths)}.block.0.conv2.weight"][0])
    blocks = sum(f"encoder.down.0.block.{n}.conv1.weight" in held for n in range(16))
    return {
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": held["encoder.conv_out.weight"][0] // 2,
        "use_quant_conv": "quant_conv.weight" in held,
        "use_post_quant_conv": "post_quant_conv.weight" in held,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in held,
    }
