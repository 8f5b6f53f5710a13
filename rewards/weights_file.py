"""Published weights files: read safely, unwrapped, and fitted to a network to the last tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn


def read_weights(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, or of a `.pt`, `.pth` or `.bin` without running its pickle.

    Training wrappers around the tensors ("state_dict", "model", "module.") are taken off. Raises
    ValueError, naming the reward `name`, for a file that is damaged or holds more than tensors.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise all kinds for damaged files
        raise ValueError(_unreadable(name, path, type(error).__name__)) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{name} found no named tensors in {path}; choose the published weights file."
        )
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def check_whole(name: str, path: Path) -> None:
    """Look at both ends of a weights file, in milliseconds and without reading its tensors.

    Raises ValueError, naming the reward `name`, for a page in its place, half a download and the
    like, and OSError where there is no file.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, "pt"):  # compares its header with its length
                return
        with path.open("rb") as file:
            # PyTorch's archive has its directory last; files of before 1.6 are a plain pickle.
            whole = is_zipfile(file)
            file.seek(0)
            whole = whole or file.read(1) == b"\x80"
    except SafetensorError as error:
        raise ValueError(_unreadable(name, path, type(error).__name__)) from error
    if not whole:
        raise ValueError(_unreadable(name, path, "no PyTorch file"))


def _unreadable(name: str, path: Path, why: str) -> str:
    return (
        f"{name} cannot read {path}: it is damaged, half downloaded or no plain weights file "
        f"({why}); download it again, or get its .safetensors."
    )


def load_exactly(name: str, path: Path, network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put `weights`, in float32, into a `network` built on the meta device; eval, no gradients.

    Raises ValueError where a tensor is missing, left over or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    other = [k for k in sorted(expected) if k in weights and weights[k].shape != expected[k]]
    if missing or unknown or other:
        found = [
            f"{len(keys)} {what} (such as {keys[0]})"
            for keys, what in ((missing, "missing"), (unknown, "unknown"), (other, "misshapen"))
            if keys
        ]
        raise ValueError(
            f"{path} does not hold the weights of {name}: tensors are {', '.join(found)}; "
            "choose the file that belongs to this reward."
        )
    network.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    _fill_positions(network)
    network.eval().requires_grad_(False)


def _fill_positions(network: nn.Module) -> None:
    """transformers' position ids are in no file, and have no values on the meta device."""
    for module in network.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor) and positions.is_meta:
            module.position_ids = torch.arange(positions.shape[-1]).expand(1, -1)


def numbered(weights: Mapping[str, Tensor], before: str) -> int:
    """How many layers `<before>0.`, `<before>1.` … there are."""
    numbers = {key.removeprefix(before).split(".")[0] for key in weights if key.startswith(before)}
    return len(numbers)
