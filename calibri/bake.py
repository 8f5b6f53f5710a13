"""A preset as a weight patch: a LoRA-style file that any loader of LoRAs applies.

Scaling a branch is scaling rows of its last linear's weight and bias. A LoRA file says this exactly
as a DoRA scale on zero factors plus a difference of the bias: DoRA sets the norm of each row, and
rows set to s times their own norm are rows times s. The file therefore holds the base model's row
norms and belongs to that base.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .atomic_file import save_atomically
from .backbones import Backbone, Tap
from .coefficients import Vector
from .preset_metadata import Preset
from .presets import check_preset

PREFIX = "diffusion_model."
# Zeros need no precision, and they are most of a file's rows.
_ZEROS = torch.float8_e4m3fn

# The linear whose output is a composite module's, by class and name: tests/host/test_bake.py holds
# it against every family.
_LAST_LINEAR: Mapping[str, tuple[str, ...]] = {
    "Attention": ("to_out",),
    "ErnieImageFeedForward": ("linear_fc2",),
    "FeedForward": ("net.2", "ff.2"),
    "JoyImageFeedForward": ("net.2",),
    "MLP": ("down_proj", "proj_out"),
    "MultiHeadAttention": ("to_out",),
    "SwiGLU": ("down",),
    "SwiGLUMLP": ("proj_out",),
}
_NORMS = ("RMSNorm", "LayerNorm")
_WITHOUT_EFFECT = (nn.Dropout, nn.Identity)


class BakeError(ValueError):
    """A preset that no weight patch can express on this model."""


def preset_patch(
    preset: Preset, model: nn.Module, backbone: Backbone, read: Callable[[str], Tensor]
) -> dict[str, Tensor]:
    """A preset as the tensors of a LoRA file for `model`; `read` as in `weight_patch`.

    Raises BakeError where no patch can express it or it changes nothing, PresetError for a preset
    of another model.
    """
    if preset.is_ensemble:
        raise BakeError(
            f"The preset has {len(preset.members)} members, whose predictions are summed, and one "
            "set of weights makes one prediction: use it with Apply Calibri."
        )
    space, vectors = check_preset(preset, backbone)
    tensors = weight_patch(model, backbone, space.expand(vectors)[0], read)
    if not tensors:
        raise BakeError(
            "The preset's coefficients are all 1, so there is nothing to write: choose another."
        )
    return tensors


def save_patch(path: Path, tensors: Mapping[str, Tensor], preset: Preset) -> None:
    """Write a patch with what it is and fits in its metadata. Raises OSError with the mend."""
    from safetensors.torch import save

    told = {
        "title": preset.title,
        "family": preset.family,
        "granularity": preset.granularity,
        "base_model": preset.base_model,
        "licence": preset.licence,
        "fingerprint": preset.fingerprint,
        "fits": "this base model only: the file holds the norms of its weights' rows",
    }
    data = save(dict(tensors), {"calibri_weight_patch": json.dumps(told)})
    save_atomically(path, data, "weight patch")


def weight_patch(
    model: nn.Module,
    backbone: Backbone,
    gains: Vector,
    read: Callable[[str], Tensor],
) -> dict[str, Tensor]:
    """The patch that multiplies each tap of `model` by its gain, as the tensors of a LoRA file.

    `gains` [T] are one member's, a column per tap. `read` gives a parameter as the model computes
    with it, dequantised, by its path below the diffusion model. Modules whose gains are all 1 are
    left out. Raises BakeError where a branch does not end in weights.
    """
    taps_of: dict[str, list[tuple[Tap, float]]] = {}
    for tap, gain in zip(backbone.taps, gains.tolist(), strict=True):
        taps_of.setdefault(tap.module, []).append((tap, gain))
    patch: dict[str, Tensor] = {}
    for path, taps in taps_of.items():
        if all(gain == 1.0 for _, gain in taps):
            continue
        if any(tap.tanh for tap, _ in taps):
            raise BakeError(
                f"The gates of {path} pass through a tanh, which no weights can scale: use the "
                "preset with Apply Calibri."
            )
        last = _last_weights(model, path)
        module = model.get_submodule(last)
        weight = read(f"{last}.weight").float()
        factors = _row_factors(taps, weight.shape[0]).to(weight.device)
        if weight.ndim == 1:
            patch[f"{PREFIX}{last}.diff"] = (factors - 1.0) * weight
        else:
            patch |= _scaled_rows(f"{PREFIX}{last}", weight, factors)
        if getattr(module, "bias", None) is not None:
            patch[f"{PREFIX}{last}.diff_b"] = (factors - 1.0) * read(f"{last}.bias").float()
    return {name: tensor.contiguous().cpu() for name, tensor in patch.items()}


def _scaled_rows(name: str, weight: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """A DoRA scale [out, 1] on zero factors; loaders divide by each row's norm plus an epsilon."""
    out, inner = weight.shape[:2]
    kernel = weight.shape[2:]
    norms = weight.reshape(out, -1).norm(dim=1) + torch.finfo(torch.float32).eps
    ones = [1] * len(kernel)
    return {
        f"{name}.dora_scale": (factors * norms).reshape(out, 1, *ones),
        f"{name}.lora_up.weight": torch.zeros(out, 1, *ones, dtype=_ZEROS),
        f"{name}.lora_down.weight": torch.zeros(1, inner, *kernel, dtype=_ZEROS),
    }


def _row_factors(taps: list[tuple[Tap, float]], rows: int) -> Tensor:
    """What each of a module's output channels is multiplied by: [rows]."""
    first = taps[0][0]
    factors = torch.ones(first.repeats, first.chunks, rows // (first.repeats * first.chunks))
    for tap, gain in taps:
        factors[:, tap.chunk] = gain
    return factors.flatten()


def _last_weights(model: nn.Module, path: str) -> str:
    """The path of the weights that make a module's output; BakeError where there are none."""
    module = model.get_submodule(path)
    kind = type(module).__name__
    if isinstance(module, nn.Sequential):
        for name, child in reversed(list(module.named_children())):
            if not isinstance(child, _WITHOUT_EFFECT):
                return _last_weights(model, f"{path}.{name}")
    elif kind in _LAST_LINEAR:
        for name in _LAST_LINEAR[kind]:
            if _has(module, name):
                return _last_weights(model, f"{path}.{name}")
    elif getattr(module, "weight", None) is not None and (
        hasattr(module, "out_features") or hasattr(module, "out_channels") or kind in _NORMS
    ):
        return path
    raise BakeError(
        f"The branch that ends at {path} ends in a {kind}, which has no weights of its own that "
        "could be scaled: use the preset with Apply Calibri."
    )


def _has(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.Module)
    except AttributeError:
        return False
