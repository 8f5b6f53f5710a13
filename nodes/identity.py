"""Telling models apart: has this run seen this model, text encoder and VAE before?

A resumed run must go on with what it began with. Weights are recognised by their norms and biases,
which survive another precision or quantisation, patches such as LoRAs by samples of their values.
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

_SAMPLED_VALUES = 16  # of each tensor of a patch


def identity(patcher: ModelPatcher) -> str:
    """A hash of a patcher's weights, weight patches and Calibri presets."""
    digest = hashlib.sha256()
    for name, parameter in sorted(patcher.model.named_parameters()):
        if parameter.ndim == 1 and parameter.is_floating_point():
            digest.update(name.encode())
            # While another clone's patches are in the weights, the model's own are kept here.
            kept = patcher.backup.get(name)
            digest.update(_bytes(parameter.detach() if kept is None else kept.weight))
    for key in sorted(patcher.patches):
        digest.update(str(key).encode())
        _add(digest, patcher.patches[key])
    for wrapper in patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
        for layer in wrapper.layers:
            _add_whole(digest, layer.gains)
            _add(digest, (layer.start_percent, layer.end_percent))
            if layer.weights is not None:
                _add_whole(digest, layer.weights)
                _add(digest, str(layer.guidance))
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


def _add_whole(digest: Any, values: torch.Tensor) -> None:
    """A preset's numbers, every one to its last bit: two presets may differ in a single one."""
    digest.update(str(tuple(values.shape)).encode())
    digest.update(values.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())


def _bytes(values: torch.Tensor) -> bytes:
    return values.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
