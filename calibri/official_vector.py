"""Test vectors of the official code: what it made of a tiny model's inputs.

A vector is a JSON file that describes the model, the mode and the flat coefficients, beside a
`.safetensors` with the model's weights (`weights.*`), its inputs (`in.*`, with guidance also
`uncond.*`) and the recorded outputs. `verification.py` computes them again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import safetensors
from torch import Tensor

from .official_file import read_whole_number

MODEL_CLASSES = (
    "FluxTransformer2DModel",
    "SD3Transformer2DModel",
    "QwenImageTransformer2DModel",
)
MODES = ("ensemble", "cfg")


class OfficialVectorError(ValueError):
    """A vector cannot be read, or does not fit together."""


@dataclass(frozen=True)
class OfficialVector:
    """One recorded call of the official code."""

    model_class: str  # one of `MODEL_CLASSES`
    config: Mapping[str, Any]  # the class's arguments
    # "ensemble": the weighted sum of all members; "cfg": member 0 on the inputs, member 1 on the
    # unconditional ones.
    mode: str
    shapes: Mapping[str, Any]  # as in a checkpoint, see official.py
    coefficients: tuple[float, ...]  # flat, in the official order
    # Those the official code starts from, where they were seen to give the plain model's output.
    identity: tuple[float, ...] | None
    weights: Mapping[str, Tensor]  # the model's state dict
    inputs: Mapping[str, Any]  # arguments of a call
    unconditional: Mapping[str, Any]  # the same for the negative prompt, empty without guidance
    output: Tensor
    plain_output: Tensor | None  # of the uncalibrated model on `inputs`


def read_official_vector(path: str | os.PathLike[str]) -> OfficialVector:
    """Read a vector's JSON file and the tensors beside it.

    Raises OfficialVectorError in one sentence for whatever is no such vector.
    """
    path = Path(path)
    try:
        described = json.loads(path.read_text(encoding="utf-8"), parse_int=read_whole_number)
    except OSError as error:
        raise OfficialVectorError(
            f"{path} cannot be read ({error.strerror}): name the JSON file of a vector."
        ) from error
    except (ValueError, RecursionError) as error:
        raise OfficialVectorError(
            f"{path} is not JSON: name the JSON file of a vector, not its tensors."
        ) from error
    if not isinstance(described, dict):
        raise OfficialVectorError(f"{path} holds no JSON object: name the JSON file of a vector.")
    fields = _Fields(path, described)
    name = fields.text("file")
    # PureWindowsPath: a name that is a path on any system.
    if PureWindowsPath(name).name != name or name == "..":
        raise OfficialVectorError(
            f"{path} names its tensors {name!r}, outside its folder: put them beside it."
        )
    tensors = _read_tensors(path.parent / name)
    config = fields.mapping("config")
    mode = fields.choice("mode", MODES)
    needed = ["output", "in.hidden_states", *(["uncond.hidden_states"] if mode == "cfg" else [])]
    for key in needed:
        if key not in tensors:
            raise OfficialVectorError(
                f"{name} lacks the tensor {key!r}, which a vector of mode {mode!r} needs: use the "
                "files as they were recorded."
            )
    image_shapes = fields.image_shapes()
    return OfficialVector(
        model_class=fields.choice("diffusers_class", MODEL_CLASSES),
        config=config,
        mode=mode,
        shapes=fields.mapping("shapes"),
        coefficients=fields.numbers("coefficients"),
        identity=fields.identity() if mode == "ensemble" else None,
        weights=_starting_with("weights.", tensors),
        inputs=_starting_with("in.", tensors) | image_shapes,
        unconditional=_starting_with("uncond.", tensors) | image_shapes if mode == "cfg" else {},
        output=tensors["output"],
        plain_output=tensors.get("output_uncalibrated"),
    )


@dataclass(frozen=True)
class _Fields:
    """The JSON object of a vector, read field by field."""

    path: Path
    described: dict[str, Any]

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            self._refuse(key, "a text")
        return value

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in known:
            self._refuse(key, "one of " + ", ".join(known))
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._get(key)
        if not isinstance(value, dict):
            self._refuse(key, "an object")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self._get(key)
        if not isinstance(value, list) or not all(_is_finite(number) for number in value):
            self._refuse(key, "a list of finite numbers")
        return tuple(map(float, value))

    def identity(self) -> tuple[float, ...] | None:
        if self.described.get("default_max_abs_diff_vs_plain") is None:
            return None
        return self.numbers("default_coefficients")

    def image_shapes(self) -> dict[str, Any]:
        """The call's argument of this name: for each sample its images' frames, height, width."""
        samples = self.described.get("img_shapes")
        if samples is None:
            return {}
        try:
            shapes = [[(int(t), int(h), int(w)) for t, h, w in images] for images in samples]
        except (TypeError, ValueError):
            self._refuse("img_shapes", "a list of [frames, height, width] for each sample")
        return {"img_shapes": shapes}

    def _get(self, key: str) -> Any:
        if key not in self.described:
            raise OfficialVectorError(
                f"{self.path} has no {key!r}: name the JSON file of a vector of the official code."
            )
        return self.described[key]

    def _refuse(self, key: str, expected: str) -> NoReturn:
        shown = json.dumps(self.described[key])
        shown = shown if len(shown) <= 60 else shown[:60] + "…"
        raise OfficialVectorError(
            f"{self.path} has {key} = {shown}, which is not {expected}: use the file as it was "
            "recorded."
        )


def _is_finite(value: Any) -> bool:
    # Not below infinity: an integer of 400 digits is that, and no float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise OfficialVectorError(
            f"{path}, the vector's tensors, cannot be read ({error}): put the .safetensors that "
            "belongs to the vector there."
        ) from error


def _starting_with(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
