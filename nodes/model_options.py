"""What nodes have put on a model beside weights, in words: so that kept results are not mistaken.

A guidance node leaves functions in a MODEL's options, with its numbers in their closures; others
leave wrappers, callbacks or parts in the model's place.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from . import identity

_PACK = __name__.rpartition(".nodes.")[0] + "."
_DEEPEST = 10  # options nest no deeper
_PLAIN = (bool, int, float, str, type(None))


def mark(model: ModelPatcher) -> str:
    """A hash of all that nodes have put on `model`, beside weights, their patches and presets."""
    held = {
        "options": model.model_options,
        "object_patches": model.object_patches,
        "wrappers": model.wrappers,
        "callbacks": model.callbacks,
        "injections": model.injections,
    }
    return hashlib.sha256(json.dumps(described(held)).encode()).hexdigest()[:32]


def described(value: Any, depth: int = 0, seen: set[int] | None = None) -> Any:
    """`value` as JSON values, equal for equal options in every process, before and after sampling.

    Functions by their names and what they close over, objects by class and what they were made
    with, tensors by a hash, models by `identity`. Calibri's own objects are told by `identity.py`,
    to the last bit.
    """
    seen = set() if seen is None else seen

    def inner(item: Any) -> Any:
        return described(item, depth + 1, seen)

    if isinstance(value, _PLAIN):
        return str(value)
    if torch.is_tensor(value):
        return [str(value.dtype), identity.of_tensor(value)]
    if isinstance(value, ModelPatcher):  # attributes of its own change while it is loaded
        return identity.identity(value)
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if depth >= _DEEPEST or isinstance(value, (torch.nn.Module, types.ModuleType)):
        return name
    if kind.__module__.startswith(_PACK):
        return name
    if isinstance(value, Mapping):
        pairs = [[str(key), inner(item)] for key, item in value.items()]
        return sorted(pairs, key=lambda pair: pair[0])
    if isinstance(value, (list, tuple)):
        return [inner(item) for item in value]
    if isinstance(value, types.MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, functools.partial):
        return [inner(value.func), inner(value.args), inner(value.keywords)]
    if id(value) in seen:  # objects may hold themselves
        return name
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        return [f"{value.__module__}.{value.__qualname__}", *map(inner, _closed_over(value))]
    return [name, inner(_made_with(value))]


def _closed_over(function: types.FunctionType) -> list[Any]:
    """What a function got, without the variables that it sets itself: counters and caches."""
    code = function.__code__
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_DEREF"}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return [[_content(cell) for name, cell in cells if name not in own], function.__defaults__]


def _made_with(value: Any) -> dict[str, Any]:
    """Attributes that an object's constructor was given; all, where none is called as an argument.

    The others may be counters and caches, which sampling changes.
    """
    attributes = dict(getattr(value, "__dict__", {}))
    try:
        arguments = inspect.signature(type(value)).parameters
    except (TypeError, ValueError):  # of a class without Python code
        return attributes
    given = {key: item for key, item in attributes.items() if key.lstrip("_") in arguments}
    patcher = attributes.get("patcher")  # of a VAE or CLIP, whose arguments are files' tensors
    if isinstance(patcher, ModelPatcher):
        given["patcher"] = patcher
    return given or attributes


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
