"""Presets of several members, of guidance, and of another file: kept, and old files still read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.presets import (
    Guidance,
    Member,
    Preset,
    PresetError,
    check_preset,
    load_preset,
    save_preset,
)
from comfyui_calibri.demo.model import Flux, FluxConfig


@pytest.fixture
def preset() -> Preset:
    return Preset(
        family="flux",
        blocks={"double": 1, "single": 1},
        granularity="block",
        members=(
            Member({"double.0": 1.5, "single.0": 0.5}, 7.0),
            Member({"single.0": 0.25, "double.0": -1.0}, -6.5),
        ),
        guidance=Guidance(scale=7.0, rescale=True),
        origin="cmaes_step_0480.json",
    )


def header_of(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="numpy") as file:
        header: dict[str, Any] = json.loads(file.metadata()["calibri"])
        return header


def test_round_trip(tmp_path: Path, preset: Preset) -> None:
    save_preset(tmp_path / "a.safetensors", preset)
    assert load_preset(tmp_path / "a.safetensors") == preset
    tensors = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    # Members may list their names in any order: the file has one.
    assert header_of(tmp_path / "a.safetensors")["coefficients"] == ["double.0", "single.0"]
    np.testing.assert_array_equal(tensors["coefficients"], [[1.5, 0.5], [-1.0, 0.25]])
    np.testing.assert_array_equal(tensors["weights"], np.float32([7.0, -6.5]))


def test_what_does_not_apply_is_not_written(tmp_path: Path, preset: Preset) -> None:
    """So older versions of Calibri, which know neither field, read what they can apply."""
    save_preset(tmp_path / "a.safetensors", replace(preset, guidance=None, origin=""))
    assert not {"guidance", "origin", "members"} & header_of(tmp_path / "a.safetensors").keys()
    assert load_preset(tmp_path / "a.safetensors").guidance is None


def test_presets_that_are_more_than_scaling_one_model(preset: Preset) -> None:
    first = preset.members[0].coefficients
    assert preset.is_ensemble
    assert replace(preset, members=(Member(first, 0.9),)).is_ensemble
    assert not replace(preset, members=(Member(first),)).is_ensemble


def test_check_gives_a_vector_for_each_member(preset: Preset) -> None:
    torch.manual_seed(0)
    space, vectors = check_preset(
        preset, read_backbone(Flux(FluxConfig(double_blocks=1, single_blocks=1)))
    )
    assert space.names == ("double.0", "single.0")
    np.testing.assert_array_equal(vectors, [[1.5, 0.5], [-1.0, 0.25]])


ONE = Member({"double.0": 1.5, "single.0": 0.5})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"members": ()}, "it has no members"),
        ({"members": (ONE, Member({"double.0": 1.0}))}, "coefficients of different names"),
        ({"members": (ONE,)}, "guidance but 1 members, which takes 2"),
        ({"members": (ONE, replace(ONE, weight=10.5))}, "weights are not all within"),
        ({"members": (ONE, replace(ONE, weight=float("nan")))}, "weights are not all within"),
        ({"guidance": Guidance(float("nan"))}, "NaN is no number"),
        ({"guidance": Guidance(1e3)}, "guidance.scale is 1000, beyond 100"),
    ],
)
def test_invalid_presets_are_not_saved(
    tmp_path: Path, preset: Preset, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PresetError, match=f"{problem}.*; mend it before saving"):
        save_preset(tmp_path / "a.safetensors", replace(preset, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"guidance": None}, "guidance must be of type dict"),
        ({"guidance": {"scale": 7.0}}, "guidance lacks 'rescale'"),
        ({"guidance": {"scale": "7", "rescale": True}}, "guidance.scale must be a finite number"),
        ({"guidance": {"scale": 7.0, "rescale": 1}}, "guidance.rescale must be of type bool"),
        ({"origin": 3}, "origin must be of type str"),
        ({"members": []}, "the metadata has the unknown 'members'"),
    ],
)
def test_wrong_metadata(
    tmp_path: Path, preset: Preset, changes: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_preset(path, preset)
    header, tensors = header_of(path) | changes, safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, metadata={"calibri": json.dumps(header)})
    with pytest.raises(PresetError, match=problem):
        load_preset(path)
