"""A model's file as a skeleton: modules that have names and shapes but no weights.

Enough to read where a family's branches are scaled and to bake a preset without ComfyUI, a weight
at a time. The file must be in ComfyUI's own layout; the family is the one that is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from .backbones import Backbone, UnknownBackboneError, read_backbone
from .families import FAMILIES

# Where files keep the diffusion model: checkpoints, files of it alone, and those of some trainers.
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
_PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}
_PARAMETERS = {"weight", "bias"}


class ModelFileError(ValueError):
    """A model file that cannot be read as what it should be."""


class Linear(nn.Module):
    """Stands for a linear or a convolution: what it declares, without its numbers."""

    def __init__(self, shape: tuple[int, ...], has_bias: bool) -> None:
        super().__init__()
        self.out_features, self.in_features = shape[:2]
        self.weight = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
        self.bias = self.weight if has_bias else None


class RMSNorm(nn.Module):
    """Stands for a norm with a weight for each channel."""

    def __init__(self, shape: tuple[int, ...], has_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
        self.bias = self.weight if has_bias else None


class Composite(nn.Module):
    """Stands for modules of modules: of which class, a file does not tell."""


@dataclass(frozen=True)
class ModelFile:
    """An open file's diffusion model; `model` is its skeleton."""

    path: Path
    model: nn.Module
    backbone: Backbone
    _file: Any
    _prefix: str
    _keys: frozenset[str]

    def read(self, name: str) -> Tensor:
        """A parameter by its path below the diffusion model, on the CPU.

        Raises ModelFileError for one that is quantised: what it stands for, only its loader knows.
        """
        module, _, _ = name.rpartition(".")
        beside = {
            key[len(self._prefix + module) + 1 :]
            for key in self._keys
            if key.startswith(f"{self._prefix}{module}.")
        }
        kind = self._file.get_slice(self._prefix + name).get_dtype()
        if kind not in _PLAIN_TYPES or beside - _PARAMETERS:
            raise ModelFileError(
                f"{self.path} is quantised ({module} holds {kind}): use the model's file in 16 "
                "bits, or Save as Weight Patch in ComfyUI."
            )
        tensor: Tensor = self._file.get_tensor(self._prefix + name)
        return tensor


@contextmanager
def open_model_file(path: str | os.PathLike[str], family: str) -> Iterator[ModelFile]:
    """Open a `.safetensors` file that holds a model of `family`, in ComfyUI's layout.

    Raises ModelFileError where it cannot be opened or holds no such model.
    """
    path = Path(path)
    try:
        opened = safetensors.safe_open(path, framework="pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(
            f"The model {path} cannot be opened as .safetensors ({error}): check its name, or use "
            "Save as Weight Patch in ComfyUI."
        ) from error
    with opened as file:
        keys = list(file.keys())
        prefix = next(p for p in _PREFIXES if any(key.startswith(p) for key in keys) or not p)
        shapes = {
            key[len(prefix) :]: tuple(file.get_slice(key).get_shape())
            for key in keys
            if key.startswith(prefix)
        }
        model, backbone = _read(path, shapes, family)
        yield ModelFile(path, model, backbone, file, prefix, frozenset(keys))


def _read(
    path: Path, shapes: dict[str, tuple[int, ...]], family: str
) -> tuple[nn.Module, Backbone]:
    for entry in FAMILIES:
        if entry.name != family:
            continue
        model = _skeleton(shapes, entry.classes[0])
        try:
            backbone = read_backbone(model)
        except UnknownBackboneError:
            continue
        for tap in backbone.taps:
            if isinstance(model.get_submodule(tap.module), Composite):
                raise ModelFileError(
                    f"How {tap.module} ends is not to be seen in {path}: use Save as Weight Patch "
                    "in ComfyUI, which knows its class."
                )
        if backbone.family == family:
            return model, backbone
    raise ModelFileError(
        f"The model {path} holds no {family} in ComfyUI's own layout: name the model's file as "
        "ComfyUI loads it, or use Save as Weight Patch in ComfyUI, which reads other layouts too."
    )


def _skeleton(shapes: dict[str, tuple[int, ...]], kind: str) -> nn.Module:
    """Modules of these parameters below one whose class is called `kind`."""
    root: nn.Module = type(kind, (nn.Module,), {})()
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        if parameter != "weight" or not module or not shape:
            continue
        leaf = Linear if len(shape) > 1 else RMSNorm
        parents = module.split(".")
        _child(root, parents[:-1]).add_module(parents[-1], leaf(shape, f"{module}.bias" in shapes))
    return _with_sequences(root)


def _child(module: nn.Module, path: Iterable[str]) -> nn.Module:
    """The module at `path`, made on the way."""
    for name in path:
        if name not in module._modules:
            module.add_module(name, Composite())
        module = module.get_submodule(name)
    return module


def _with_sequences(module: nn.Module) -> nn.Module:
    """The module, those in it whose children are numbered made sequences in their order."""
    for name, child in list(module.named_children()):
        _with_sequences(child)
        numbers = [number for number, _ in child.named_children()]
        if isinstance(child, Composite) and numbers and all(n.isdecimal() for n in numbers):
            sequence = nn.Sequential()
            for number in sorted(numbers, key=int):
                sequence.add_module(number, child.get_submodule(number))
            module._modules[name] = sequence
    return module
