"""Presets: calibrated coefficients in a small `.safetensors` file that is safe to open.

The file holds the tensors `coefficients` [M, N] and `weights` [M], float32, and in its metadata the
JSON of `preset_metadata.py`, and a small picture. M is the number of members of an ensemble,
mostly 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import nn

from .atomic_file import save_atomically
from .backbones import Backbone, read_backbone
from .coefficients import CoefficientError, CoefficientSpace, Vector, coefficient_space
from .preset_metadata import (
    Guidance,
    Member,
    MetadataError,
    Preset,
    RewardChange,
    preset_from_json,
    preset_to_json,
)
from .thumbnail import KEY as THUMBNAIL_KEY
from .thumbnail import thumbnail_from_text, thumbnail_to_text

__all__ = [
    "Guidance",
    "Member",
    "Preset",
    "PresetError",
    "RewardChange",
    "changes_nothing",
    "check_preset",
    "describe_backbone",
    "describe_members",
    "fingerprint",
    "load_preset",
    "save_preset",
]

METADATA_KEY = "calibri"
# A preset has some kilobytes; a file beyond this is something else.
MAX_BYTES = 16 * 2**20


class PresetError(ValueError):
    """A preset cannot be read, saved or used on a model."""


def save_preset(path: str | os.PathLike[str], preset: Preset, overwrite: bool = False) -> None:
    """Write `preset` to `path`, completely or not at all.

    Raises PresetError for a preset that `load_preset` would refuse, FileExistsError where `path`
    exists and `overwrite` is False, OSError where the disk is full or does not let us write.
    """
    path = Path(path)
    try:
        text = preset_to_json(preset)
        values, weights = _arrays(preset)
        preset_from_json(text, values, weights)
    except (MetadataError, TypeError, ValueError) as error:
        raise PresetError(
            f"The preset for {path} is not valid: {error}; mend it before saving."
        ) from error
    tensors = {"coefficients": values, "weights": weights}
    metadata = {METADATA_KEY: text}
    if preset.thumbnail:
        metadata[THUMBNAIL_KEY] = thumbnail_to_text(preset.thumbnail)
    data = safetensors.numpy.save(tensors, metadata=metadata)
    save_atomically(path, data, "preset", overwrite)


def load_preset(path: str | os.PathLike[str]) -> Preset:
    """Read a preset file of any origin. Raises PresetError for anything that should not be so."""
    path = Path(path)
    metadata, tensors = _read_file(path)
    try:
        if set(tensors) != {"coefficients", "weights"}:
            raise MetadataError("it must hold two tensors, coefficients and weights")
        values, weights = tensors["coefficients"], tensors["weights"]
        preset = preset_from_json(metadata[METADATA_KEY], values, weights)
        return replace(preset, thumbnail=thumbnail_from_text(metadata.get(THUMBNAIL_KEY, "")))
    except MetadataError as error:
        raise PresetError(
            f"The preset {path} cannot be used: {error}; update Calibri or choose another preset."
        ) from error


def check_preset(preset: Preset, backbone: Backbone) -> tuple[CoefficientSpace, Vector]:
    """The preset's coefficient space on this model, and its members' vectors [M, N] there.

    Raises PresetError for a preset of another family or other block counts, and for coefficients
    that are not this space's or out of its bounds.
    """
    wanted = describe_backbone(preset.family, preset.blocks)
    found = describe_backbone(backbone.family, backbone.blocks)
    if wanted != found:
        raise PresetError(
            f"The preset is for {wanted} but the model is {found}: "
            "choose a preset that was found on this kind of model."
        )
    try:
        space = coefficient_space(backbone, preset.granularity)
        vectors = [space.vector(member.coefficients) for member in preset.members]
        return space, np.stack(vectors)
    except CoefficientError as error:
        raise PresetError(f"The preset does not fit the model: {error}") from error


def fingerprint(model: nn.Module, kept: Mapping[str, torch.Tensor] | None = None) -> str:
    """A hash of the norms and biases in the first and last block of each kind of a DiT.

    `kept` are parameters by their paths that the model has put aside while others are in it.

    The same in other precisions of a model if they keep these vectors in bfloat16 or better, as fp8
    and GGUF files often do. Another fingerprint means "perhaps another model", no more.
    """
    backbone = read_backbone(model)
    ends = {
        ".".join(tap.module.split(".")[:2])
        for tap in backbone.taps
        if tap.index in (0, backbone.blocks[tap.block] - 1)
    }
    digests = [
        hashlib.sha256(_bfloat16_bytes((kept or {}).get(f"{block}.{name}", parameter))).digest()
        for block in ends
        for name, parameter in model.get_submodule(block).named_parameters()
        if parameter.ndim == 1 and parameter.is_floating_point()
    ]
    # Sorted, because ComfyUI versions differ in the order of a block's modules.
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:32]


def _bfloat16_bytes(vector: torch.Tensor) -> bytes:
    data: bytes = vector.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
    return data


def changes_nothing(preset: Preset) -> bool:
    """Whether a preset is the plain model."""
    ones = all(value == 1.0 for m in preset.members for value in m.coefficients.values())
    weights = [member.weight for member in preset.members]
    if preset.guidance is None:
        return ones and abs(sum(weights) - 1.0) < 1e-6
    scale = preset.guidance.scale
    return ones and abs(weights[0] - scale) + abs(weights[1] - (1.0 - scale)) < 1e-6


def describe_members(preset: Preset) -> str:
    """How the members' predictions become one, in a sentence."""
    weights = ", ".join(f"{member.weight:.4g}" for member in preset.members)
    if preset.guidance is not None:
        return (
            f"Two members for prompt and negative prompt with the weights {weights}, in place of "
            f"CFG at {preset.guidance.scale:.4g}."
        )
    if len(preset.members) > 1:
        return f"An ensemble of {len(preset.members)} members with the weights {weights}."
    return f"One member with the weight {weights}."


def _arrays(preset: Preset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The coefficients [M, N] and weights [M]; MetadataError where members have other names."""
    if not preset.members:
        raise MetadataError("it has no members")
    names = list(preset.members[0].coefficients)
    for member in preset.members:
        if member.coefficients.keys() != set(names):
            raise MetadataError("its members have coefficients of different names")
    rows = [[member.coefficients[name] for name in names] for member in preset.members]
    weights = [member.weight for member in preset.members]
    return np.array(rows, dtype=np.float32), np.array(weights, dtype=np.float32)


def describe_backbone(family: str, blocks: Mapping[str, int]) -> str:
    """For example "flux with 19 double and 38 single"."""
    return f"{family} with " + " and ".join(f"{blocks[kind]} {kind}" for kind in sorted(blocks))


def _read_file(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The metadata and the tensors of a file that claims to be a preset."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PresetError(
                f"The file {path} is too large for a preset: choose a file made by Calibri."
            )
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise PresetError(
            f"The preset {path} cannot be opened ({error.strerror or error}): "
            "check its name and folder."
        ) from error
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        raise PresetError(
            f"The preset {path} is truncated or no .safetensors file ({error}): "
            "download it again or choose another."
        ) from error
    if METADATA_KEY not in metadata:
        raise PresetError(
            f"The file {path} is no Calibri preset, it lacks the metadata of one: "
            "choose a file made by Calibri."
        )
    return metadata, tensors
