"""Prompts as ComfyUI conditioning: encoded once, then stacked row by row into batches.

A conditioning is ComfyUI's list of (tensor [1, tokens, width] or None, options). Two of them may
share a batch when everything is equal but the values of tensors [1, ...] of floating point: the
others are masks and token numbers, of which models make one number for the whole batch (the length
of the text, for Omnigen2 and Mochi) or which have no axis for samples at all (Anima).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

if TYPE_CHECKING:
    from comfy.sd import CLIP

Conditioning = list[tuple[torch.Tensor | None, dict[str, Any]]]


def encode(clip: CLIP, text: str, guidance: float | None) -> Conditioning:
    """Encode one prompt as CLIPTextEncode does, with FluxGuidance's value where one is given."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    extra = {} if guidance is None else {"guidance": guidance}
    encoded = clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict=extra)
    return [(tensor, options) for tensor, options in encoded]


def signature(conditioning: Conditioning) -> Hashable:
    """Equal for conditionings that may share a batch."""
    return tuple((_shape(tensor), _shape(options)) for tensor, options in conditioning)


def stack(rows: Sequence[Conditioning], device: torch.device) -> Conditioning:
    """One conditioning whose row i is `rows[i]`, on `device`; the rows' signatures are equal.

    What all rows have in common stays one row [1, ...], which ComfyUI repeats.
    """
    return [
        (
            _stack([row[entry][0] for row in rows], device),
            _stack([row[entry][1] for row in rows], device),
        )
        for entry in range(len(rows[0]))
    ]


def _shape(value: Any) -> Hashable:
    if torch.is_tensor(value):
        values = () if _has_rows(value) else tuple(value.flatten().tolist())
        return ("tensor", tuple(value.shape), str(value.dtype), values)
    if isinstance(value, dict):
        return tuple(sorted((key, _shape(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_shape(item) for item in value)
    # Numbers and words must be equal to share a batch; other objects must be the same object.
    return value if isinstance(value, (int, float, str, bool, type(None))) else id(value)


def _has_rows(tensor: torch.Tensor) -> bool:
    """Whether tensors of several prompts can be rows of one."""
    return tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[0] == 1


def _stack(values: Sequence[Any], device: torch.device) -> Any:
    first = values[0]
    if torch.is_tensor(first):
        if all(value is first for value in values) or not _has_rows(first):
            return first.to(device)  # ComfyUI gives it to every row
        return torch.cat([value.to(device) for value in values])
    if isinstance(first, dict):
        return {key: _stack([value[key] for value in values], device) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(
            _stack([value[i] for value in values], device) for i in range(len(first))
        )
    return first
