"""Telling models apart: has this run seen this model, text encoder and VAE before?

A resumed run must go on with what it began with, and kept pictures must be this model's. A LoRA
merged into a checkpoint leaves norms and biases as they are, so values of every weight are sampled.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from ..calibri.presets import fingerprint
from .patching import WRAPPER_KEY, diffusion_model

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

_SAMPLED_VALUES = 16  # of each weight, and of each tensor of a patch


def identity(patcher: ModelPatcher) -> str:
    """A hash of a patcher's weights, weight patches, Calibri presets and QRMs."""
    digest = hashlib.sha256()
    for name, parameter in sorted(patcher.model.named_parameters()):
        digest.update(name.encode())
        # While another clone's patches are in the weights, the model's own are kept here.
        kept = patcher.backup.get(name)
        weight = parameter.detach() if kept is None else kept.weight
        if weight.ndim == 1 and weight.is_floating_point():
            digest.update(_bytes(weight))
        else:
            _add_spread(digest, weight)
    for key in sorted(patcher.patches):
        digest.update(str(key).encode())
        _add(digest, patcher.patches[key])
    for patches in patcher.hook_patches.values():
        for key in sorted(patches, key=str):
            digest.update(str(key).encode())
            _add(digest, patches[key])
    for wrapper in patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
        for layer in wrapper.layers:
            _add_whole(digest, layer.gains)
            _add(digest, (layer.start_percent, layer.end_percent))
            if layer.weights is not None:
                _add_whole(digest, layer.weights)
                _add(digest, str(layer.guidance))
        for qrm in wrapper.qrms:
            _add(digest, (qrm.strength, qrm.start_percent, qrm.end_percent))
            _add(digest, (qrm.reuse, qrm.positive_only))
            for name, weight in sorted(qrm.weights().items()):
                _add(digest, name)
                _add_whole(digest, weight)
    return digest.hexdigest()[:32]


def of_clip(clip: CLIP) -> str:
    """A hash of a text encoder and of what decides besides its weights how it encodes."""
    beside = (
        str(getattr(clip, "layer_idx", None)),  # CLIP Set Last Layer
        str(sorted(getattr(clip, "tokenizer_options", {}).items(), key=str)),
        str(getattr(clip, "use_clip_schedule", False)),
    )
    digest = hashlib.sha256(identity(clip.patcher).encode())
    _add(digest, beside)
    return digest.hexdigest()[:32]


def of_tensor(values: torch.Tensor) -> str:
    """A hash of a tensor's shape and every value of it."""
    digest = hashlib.sha256()
    _add_whole(digest, values)
    return digest.hexdigest()[:32]


def fingerprint_of(patcher: ModelPatcher) -> str:
    """`fingerprint` of a MODEL, also while another clone's patches are in their weights."""
    prefix = "diffusion_model."
    kept = {
        name[len(prefix) :]: held.weight
        for name, held in patcher.backup.items()
        if name.startswith(prefix)
    }
    return fingerprint(diffusion_model(patcher), kept)


def file_name(patcher: ModelPatcher) -> str:
    """The name of a model's file where ComfyUI remembers it, else of its class."""
    made_by = getattr(patcher, "cached_patcher_init", None)  # absent in v0.3.64
    if made_by and made_by[1] and isinstance(made_by[1][0], str):
        return Path(made_by[1][0]).name
    return type(patcher.model).__name__


def _add(digest: Any, value: Any) -> None:
    if torch.is_tensor(value):
        digest.update(str(tuple(value.shape)).encode())
        digest.update(_bytes(value.detach().flatten()[:_SAMPLED_VALUES]))
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(digest, item)
    elif isinstance(value, (str, int, float, bool)):
        digest.update(str(value).encode())
    elif hasattr(value, "weights"):  # comfy.weight_adapter
        _add(digest, value.weights)


def _add_spread(digest: Any, weight: torch.Tensor) -> None:
    """A weight's type, shape and values from all over it, as they are stored.

    Another precision draws other pictures, so dequantising is not wanted here.
    """
    stored = getattr(weight, "_qdata", None)  # a quantised tensor of ComfyUI's
    if stored is None:
        stored = weight.as_subclass(torch.Tensor)  # GGUF loaders have classes of their own
    digest.update(f"{stored.dtype} {tuple(stored.shape)}".encode())
    values = stored.flatten() if stored.is_contiguous() else stored
    step = max(1, values.numel() // _SAMPLED_VALUES) if values.ndim == 1 else 1
    values = values[::step].flatten()[:_SAMPLED_VALUES]
    digest.update(values.to("cpu", torch.float32).contiguous().numpy().tobytes())


def _add_whole(digest: Any, values: torch.Tensor) -> None:
    """Every number to its last bit: two presets may differ in a single one."""
    digest.update(str(tuple(values.shape)).encode())
    digest.update(values.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())


def _bytes(values: torch.Tensor) -> bytes:
    return values.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
