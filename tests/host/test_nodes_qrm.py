"""Load, Save and Apply QRM: files in models/qrm, and what is refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.identity import fingerprint_of
from comfyui_calibri.nodes.qrm import GUIDANCE, CalibriApplyQRM, CalibriLoadQRM, CalibriSaveQRM
from comfyui_calibri.nodes.qrm_layer import GUIDANCE as LAYER_GUIDANCE
from comfyui_calibri.qrm.files import QRMFile
from comfyui_calibri.qrm.layout import QRMError

from . import tiny_fixtures
from .qrm_judge import make_qrm
from .tiny_patchers import make_model, sample

pytestmark = pytest.mark.oldest

clip, inference = tiny_fixtures.clip, tiny_fixtures.inference

SETTINGS = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "reuse_steps": 1}


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    return make_model("sd3")


@pytest.fixture
def qrm(model: ModelPatcher) -> QRMFile:
    return replace(make_qrm(model), title="A test", base_model="tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/qrm."""
    known = {**folder_paths.folder_names_and_paths, "qrm": ([str(tmp_path)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def apply(model: ModelPatcher, qrm: QRMFile) -> ModelPatcher:
    applied: ModelPatcher = CalibriApplyQRM.execute(
        model=model, qrm=qrm, guidance="both", **SETTINGS
    ).args[0]
    return applied


def test_what_is_saved_is_loaded_and_acts(
    model: ModelPatcher, clip: CLIP, qrm: QRMFile, folder: Path
) -> None:
    for number in (1, 2):
        CalibriSaveQRM.execute(qrm=qrm, filename_prefix="mine/first")
        assert (folder / "mine" / f"first_0000{number}.safetensors").is_file()
    folder_paths.filename_list_cache.clear()
    (name, other) = folders.qrm_files()
    assert CalibriLoadQRM.validate_inputs(qrm_name=name) is True
    assert CalibriLoadQRM.fingerprint_inputs(name) <= CalibriLoadQRM.fingerprint_inputs(other)
    (loaded,) = CalibriLoadQRM.execute(qrm_name=name).args
    found = sample(apply(model, loaded), clip)
    assert torch.equal(found, sample(apply(model, qrm), clip))
    assert not torch.allclose(found, sample(model, clip), atol=1e-3)


def test_bad_inputs_are_said_before_the_run(folder: Path) -> None:
    (folder / "broken.safetensors").write_bytes(b"no safetensors at all")
    folder_paths.filename_list_cache.clear()
    said = CalibriLoadQRM.validate_inputs(qrm_name="broken.safetensors")
    assert isinstance(said, str)
    assert "truncated or no .safetensors file" in said
    said = CalibriLoadQRM.validate_inputs(qrm_name="none.safetensors")
    assert said == (
        "There is no QRM 'none.safetensors' in models/qrm; put one there and press R to refresh "
        "the list."
    )
    said = CalibriApplyQRM.validate_inputs(start_percent=0.6, end_percent=0.6)
    assert said == (
        "start_percent is 0.6 and end_percent 0.6, so the QRM would never act; set start below "
        "end, or strength to 0."
    )
    assert CalibriApplyQRM.validate_inputs(start_percent=None, end_percent=0.6) is True
    assert isinstance(CalibriSaveQRM.validate_inputs(filename_prefix="../out"), str)


def test_another_architecture_is_refused(model: ModelPatcher, qrm: QRMFile) -> None:
    with pytest.raises(QRMError, match="The QRM is for sd3 with 2 joint but the model is flux"):
        apply(make_model("flux"), qrm)


def test_another_finetune_is_warned_of(
    model: ModelPatcher, qrm: QRMFile, caplog: pytest.LogCaptureFixture
) -> None:
    apply(model, replace(qrm, fingerprint=fingerprint_of(model)))
    assert not caplog.records
    apply(model, replace(qrm, fingerprint="another"))
    assert "the QRM 'A test' was trained on another model of this family (tiny)" in caplog.text


def test_the_nodes_choices_are_the_layers() -> None:
    assert GUIDANCE == LAYER_GUIDANCE
