"""Encoded prompts on disk: a run that goes on need not load its text encoder for what it has seen.

One safetensors file in `<user directory>/calibri/prompts` for each set of prompts with its encoder.
A file that is damaged or gone costs nothing but encoding again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .conditioning import Conditioning

WORTH_SECONDS = 5.0
"""What encoding must have taken, loading included, to be kept."""
MOST_BYTES = 8 * 2**30
"""Of all files together; what was used longest ago goes first."""
_FORMAT = 1


def prompts_folder() -> Path:
    """Where encoded prompts are kept."""
    return Path(folder_paths.get_user_directory()) / "calibri" / "prompts"


def file_of(texts: Sequence[str], guidance: float | None, encoder: str) -> Path:
    """The file of these texts; `encoder` tells encoders from each other, ComfyUI's version too."""
    told = json.dumps([_FORMAT, encoder, guidance, list(texts)])
    name = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    return prompts_folder() / f"{name}.safetensors"


def find(path: Path, count: int) -> list[Conditioning] | None:
    """The `count` conditionings of a file, on the CPU; None where it is not there or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["conditionings"])
            found: list[Conditioning] = _restored(told, file.get_tensor)
        if len(found) != count:
            raise ValueError(f"{len(found)} prompts, not {count}")
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        logging.warning("Calibri: the encoded prompts in %s are encoded again: %s", path, error)
        return None
    return found


def keep(path: Path, conditionings: Sequence[Conditioning]) -> None:
    """Write conditionings to `path`, if they are nothing but tensors, numbers and words.

    Whatever goes wrong is logged: the prompts are there, encoded, in any case.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        told = json.dumps(_described(list(conditionings), tensors))
    except TypeError:  # hooks, for instance, are objects of this process
        return
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, size)
        save_file(tensors, partial, {"conditionings": told})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        logging.warning("Calibri: the encoded prompts are not kept on disk: %s", error)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Delete what was used longest ago until `size` more bytes fit below MOST_BYTES."""
    files = [(file.stat(), file) for file in folder.glob("*.safetensors")]
    left = sum(stat.st_size for stat, _ in files)
    for stat, file in sorted(files, key=lambda found: found[0].st_mtime):
        if left + size <= MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            file.unlink()
        left -= stat.st_size


def _described(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON values; its tensors go to `tensors`. TypeError for what is neither."""
    if torch.is_tensor(value):
        name = str(len(tensors))
        # A file holds no two tensors of one memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("JSON's keys are words.")
        return {"dict": {key: _described(item, tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_described(item, tensors) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return {"value": value}
    raise TypeError(f"{type(value).__name__} is not kept.")


def _restored(told: Any, tensor: Any) -> Any:
    ((kind, value),) = told.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "dict":
        return {key: _restored(item, tensor) for key, item in value.items()}
    if kind in ("tuple", "list"):
        items = [_restored(item, tensor) for item in value]
        return tuple(items) if kind == "tuple" else items
    if kind == "value":
        return value
    raise ValueError(f"{kind!r} is no part of a conditioning.")
