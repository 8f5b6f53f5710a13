"""What nodes have put on a model beside weights, in words: so that kept results are not mistaken.

A guidance node leaves functions in a MODEL's options, with its numbers in their closures.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

_PACK = __name__.rpartition(".nodes.")[0] + "."
_DEEPEST = 6  # options nest no deeper, and objects may hold themselves
_PLAIN = (bool, int, float, str, type(None))


def described(value: Any, depth: int = 0) -> Any:
    """`value` as JSON values, equal for equal options in every process.

    Functions by their names and what they close over, objects by class and plain attributes,
    tensors by shape. Calibri's own objects are told by `identity.py`, to the last bit.
    """
    if isinstance(value, _PLAIN):
        return str(value)
    if torch.is_tensor(value):
        return [str(value.dtype), list(value.shape)]
    if depth >= _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        pairs = [[str(key), described(item, depth + 1)] for key, item in value.items()]
        return sorted(pairs, key=lambda pair: pair[0])
    if isinstance(value, (list, tuple)):
        return [described(item, depth + 1) for item in value]
    if isinstance(value, types.MethodType):
        return [described(value.__func__, depth + 1), described(value.__self__, depth + 1)]
    if isinstance(value, types.FunctionType):
        closed = [_content(cell) for cell in value.__closure__ or ()]
        held = [described(item, depth + 1) for item in (closed, value.__defaults__)]
        return [f"{value.__module__}.{value.__qualname__}", *held]
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    # A patcher's attributes change while it is loaded, and are no options.
    if isinstance(value, (torch.nn.Module, ModelPatcher)) or kind.__module__.startswith(_PACK):
        return name
    attributes = getattr(value, "__dict__", {})
    return [name, described({k: v for k, v in attributes.items() if isinstance(v, _PLAIN)})]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
