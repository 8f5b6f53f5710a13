"""Preset files: whole round trips, and a sentence for each file that is not one."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from comfyui_calibri.calibri.backbones import Backbone, read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.preset_metadata import preset_to_json
from comfyui_calibri.calibri.presets import (
    Member,
    Preset,
    PresetError,
    RewardChange,
    check_preset,
    fingerprint,
    load_preset,
    save_preset,
)
from comfyui_calibri.demo.model import Flux, FluxConfig


@pytest.fixture(scope="module")
def model() -> Flux:
    torch.manual_seed(0)
    return Flux(FluxConfig(double_blocks=1, single_blocks=2))


@pytest.fixture(scope="module")
def backbone(model: Flux) -> Backbone:
    return read_backbone(model)


@pytest.fixture
def preset(backbone: Backbone) -> Preset:
    space = coefficient_space(backbone, "layer")
    return Preset(
        family="flux",
        blocks={"double": 1, "single": 2},
        granularity="layer",
        members=(Member(space.named(np.array([0.5, 1.25, -1.0, 2.0]))),),
        title="Größer, schärfer",
        base_model="calibri-demo-dit.safetensors",
        fingerprint="0123456789abcdef",
        licence="Apache-2.0",
        created="2026-11-21T03:00:00+00:00",
        sampling={"sampler": "euler", "steps": 15, "cfg": 3.0, "guidance": None},
        rewards=(RewardChange("Demo Reward", -0.5, -0.4, 0.05, 0.15, 256, True),),
    )


def write(path: Path, preset: Preset, changes: dict[str, Any], **tensors: Any) -> None:
    """A file like save_preset's, with fields changed (`...` removes one) or other tensors."""
    header = json.loads(preset_to_json(preset)) | changes
    header = {key: value for key, value in header.items() if value is not ...}
    values = np.array([list(preset.members[0].coefficients.values())], dtype=np.float32)
    held = {"coefficients": values, "weights": np.ones(1, np.float32)} | tensors
    held = {name: tensor for name, tensor in held.items() if tensor is not None}
    safetensors.numpy.save_file(held, path, metadata={"calibri": json.dumps(header)})


def names_of(preset: Preset) -> list[str]:
    return list(preset.members[0].coefficients)


def with_coefficients(preset: Preset, coefficients: dict[str, float]) -> Preset:
    return replace(preset, members=(Member(coefficients),))


def test_round_trip(tmp_path: Path, preset: Preset) -> None:
    save_preset(tmp_path / "a.safetensors", preset)
    assert load_preset(tmp_path / "a.safetensors") == preset
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_stores_float32_under_names(tmp_path: Path, preset: Preset) -> None:
    preset = with_coefficients(preset, dict.fromkeys(names_of(preset), 1.1))
    save_preset(tmp_path / "a.safetensors", preset)
    tensors = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert tensors["coefficients"].shape == (1, 4)
    assert tensors["coefficients"].dtype == np.float32
    assert tensors["weights"].tolist() == [1.0]
    loaded = load_preset(tmp_path / "a.safetensors").members[0].coefficients
    assert list(loaded) == names_of(preset)
    assert set(loaded.values()) == {float(np.float32(1.1))}


def test_does_not_overwrite_silently(tmp_path: Path, preset: Preset) -> None:
    path = tmp_path / "a.safetensors"
    save_preset(path, preset)
    with pytest.raises(FileExistsError, match="choose another name or allow overwriting"):
        save_preset(path, replace(preset, title="other"))
    assert load_preset(path) == preset
    save_preset(path, replace(preset, title="other"), overwrite=True)
    assert load_preset(path).title == "other"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_take_a_name_at_once_one_gets_it(
    tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "a file system without hard links")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    path, ready = tmp_path / "a.safetensors", threading.Barrier(8)

    def take(title: str) -> str | None:
        ready.wait()
        try:
            save_preset(path, replace(preset, title=title))
        except FileExistsError:
            return None
        return title

    with ThreadPoolExecutor(8) as writers:
        titles = list(writers.map(take, map(str, range(8))))
    (winner,) = (title for title in titles if title is not None)
    assert load_preset(path).title == winner
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("during", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(
    tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_preset(path, preset)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, during, fail)
    with pytest.raises(OSError, match=r"\(No space left on device\): free some space"):
        save_preset(path, replace(preset, title="other"), overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert load_preset(path) == preset


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_write_that_does_not_fit(
    tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (descriptor, str(tmp_path / "temporary")))
    with pytest.raises(OSError, match="nothing was written"):
        save_preset(tmp_path / "a.safetensors", preset)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path: Path, preset: Preset) -> None:
    with pytest.raises(OSError, match="check the folder or save it elsewhere"):
        save_preset(tmp_path / "no" / "a.safetensors", preset)


@pytest.mark.parametrize(
    "coefficients", [{}, {"double.0.mlp": float("nan")}, {"double.0.mlp": float("inf")}]
)
def test_invalid_presets_are_not_saved(
    tmp_path: Path, preset: Preset, coefficients: dict[str, float]
) -> None:
    with pytest.raises(PresetError, match="mend it before saving"):
        save_preset(tmp_path / "a.safetensors", with_coefficients(preset, coefficients))
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"cannot be opened .*: check its name and folder"):
        load_preset(tmp_path / "a.safetensors")


def test_every_truncation(tmp_path: Path, preset: Preset) -> None:
    path = tmp_path / "a.safetensors"
    save_preset(path, preset)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(PresetError, match=r"is truncated or no \.safetensors file"):
            load_preset(path)


@pytest.mark.parametrize(
    "data", [b"hello", pickle.dumps({"a": 1}), b"\xff" * 64, b"{}" * 100, b"\x89PNG\r\n\x1a\n" * 9]
)
def test_other_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(PresetError, match=r"is truncated or no \.safetensors file"):
        load_preset(path)


def test_a_model_is_no_preset(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"x": np.ones(3)}, path)
    with pytest.raises(PresetError, match="is no Calibri preset"):
        load_preset(path)
    safetensors.numpy.save_file({"x": np.ones(2**21 + 1)}, path)
    with pytest.raises(PresetError, match="too large for a preset"):
        load_preset(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 2}, "its schema is 2 where this version of Calibri reads 1"),
        ({"schema": ...}, "its schema is None"),
        ({"family": ...}, "the metadata lacks 'family'"),
        ({"download": "https://example.org"}, "the metadata has the unknown 'download'"),
        ({"family": 3}, "family must be of type str"),
        ({"title": "x" * 1001}, "title is longer than 1000 characters"),
        ({"blocks": []}, "blocks must be of type dict"),
        ({"blocks": {"double": True}}, "must be of type int"),
        ({"blocks": {"double": -1}}, "is -1"),
        ({"blocks": {str(i): 1 for i in range(65)}}, "blocks has more than 64 entries"),
        ({"granularity": "head"}, "granularity is 'head'"),
        ({"granularity": ["gate"]}, "granularity is"),
        ({"coefficients": ["a"] * 4}, "not all different"),
        ({"coefficients": ["a", "b"]}, r"of shape \(1, 4\), not .* of shape \(members, 2\)"),
        ({"coefficients": [1, 2, 3, 4]}, "coefficients must be of type str"),
        ({"sampling": {"steps": 10**400}}, r"sampling\['steps'\] must be a finite number"),
        ({"sampling": {"steps": [1]}}, r"sampling\['steps'\] must be a finite number"),
        ({"sampling": {"steps": float("nan")}}, "it is no JSON"),
        ({"rewards": [{"name": "x"}]}, "rewards lacks 'after'"),
        ({"rewards": {}}, "rewards must be of type list"),
    ],
)
def test_wrong_metadata(
    tmp_path: Path, preset: Preset, changes: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, preset, changes)
    with pytest.raises(PresetError, match=f"{problem}.*; update Calibri or choose another"):
        load_preset(path)


@pytest.mark.parametrize("text", ["", "[", "null", "[1]", "[" * 100_000, "1e999", "\x00"])
def test_metadata_that_is_no_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"coefficients": np.ones((1, 1), np.float32), "weights": np.ones(1, np.float32)}
    safetensors.numpy.save_file(tensors, path, metadata={"calibri": text})
    with pytest.raises(PresetError, match="cannot be used"):
        load_preset(path)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weights": None}, "two tensors"),
        ({"extra": np.ones(1)}, "two tensors"),
        ({"weights": np.ones(1)}, "its weights must be float32"),
        ({"weights": np.ones(2, np.float32)}, "one for each member"),
        ({"weights": np.full(1, 10.5, np.float32)}, "weights are not all within −10…10"),
        ({"weights": np.full(1, np.nan, np.float32)}, "weights are not all within −10…10"),
        ({"coefficients": np.ones(4, np.float32)}, r"float32 of shape \(4,\), not"),
        ({"coefficients": np.ones((65, 4), np.float32)}, "it has 65 members, not 1 to 64"),
        ({"coefficients": np.ones((1, 4))}, "coefficients are float64"),
        ({"coefficients": np.ones((1, 5), np.float32)}, "not float32 of shape"),
        ({"coefficients": np.array([[1, 1, 1, np.nan]], np.float32)}, "not all finite"),
    ],
)
def test_wrong_tensors(
    tmp_path: Path, preset: Preset, tensors: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, preset, {}, **tensors)
    with pytest.raises(PresetError, match=problem):
        load_preset(path)


def test_check_gives_the_vector(preset: Preset, backbone: Backbone) -> None:
    space, vectors = check_preset(preset, backbone)
    assert space.granularity == "layer"
    np.testing.assert_array_equal(vectors, [[0.5, 1.25, -1.0, 2.0]])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"family": "sd3"},
            "is for sd3 with 1 double and 2 single but the model is flux with",
        ),
        ({"blocks": {"double": 19, "single": 38}}, "is for flux with 19 double and 38 single but"),
        ({"blocks": {"joint": 24}}, "is for flux with 24 joint but"),
        ({"granularity": "gate"}, "does not fit the model: The mapping lacks the coefficient"),
        ({"members": (Member({"double.0.attention": 1.0}),)}, "lacks .* 'double.0.mlp' and 2"),
    ],
)
def test_check_refuses(
    preset: Preset, backbone: Backbone, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PresetError, match=problem):
        check_preset(replace(preset, **changes), backbone)


def test_check_refuses_coefficients_out_of_bounds_in_any_member(
    preset: Preset, backbone: Backbone
) -> None:
    far = Member(dict.fromkeys(names_of(preset), 2.5), 0.5)
    with pytest.raises(PresetError, match=r"'double\.0\.attention' is 2\.5, outside -1…2"):
        check_preset(replace(preset, members=(*preset.members, far)), backbone)


def test_fingerprint(model: Flux) -> None:
    found = fingerprint(model)
    assert found == fingerprint(copy.deepcopy(model).to(torch.bfloat16))
    weights_changed, bias_changed = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        weights_changed.get_submodule("single_blocks.1.linear2").weight.mul_(2)  # type: ignore[operator]
        bias_changed.get_submodule("single_blocks.1.linear2").bias.add_(0.1)  # type: ignore[operator]
    assert fingerprint(weights_changed) == found
    assert fingerprint(bias_changed) != found
