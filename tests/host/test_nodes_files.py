"""Presets as files: found, read, or refused in a sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Member, Preset, fingerprint
from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.patching import backbone_of, diffusion_model
from comfyui_calibri.nodes.presets import CalibriLoadPreset, CalibriSavePreset

from .tiny_patchers import make_clip, make_model, sample

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's models folder, with the pack's folders registered."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(
        folder_paths,
        "folder_names_and_paths",
        {name: (list(paths), set(kinds)) for name, (paths, kinds) in _FOLDERS.items()},
    )
    folders.register()
    folder_paths.filename_list_cache.clear()
    return tmp_path / "models"


_FOLDERS = dict(folder_paths.folder_names_and_paths)


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.inference_mode():
        return make_model()


@pytest.fixture
def preset(model: Any) -> Preset:
    space = coefficient_space(backbone_of(model), "gate")
    return Preset(
        family="flux",
        blocks=dict(space.backbone.blocks),
        granularity="gate",
        members=(Member(dict.fromkeys(space.names, 0.5)),),
        title="half",
        fingerprint=fingerprint(diffusion_model(model)),
    )


def save(preset: Preset, prefix: str = "mine") -> None:
    CalibriSavePreset.execute(preset, prefix)


def test_user_folder_is_where_presets_go_and_only_safetensors_are_listed(
    models: Path, preset: Preset
) -> None:
    assert folder_paths.get_folder_paths("calibri")[0] == str(models / "calibri")
    save(preset)
    (models / "calibri" / "notes.txt").write_text("no preset")
    assert [name for name in folders.preset_files() if "mine" in name or "notes" in name] == [
        "mine_00001.safetensors"
    ]


def test_saving_again_never_overwrites(models: Path, preset: Preset) -> None:
    for _ in range(3):
        save(preset, "folder/mine")
    saved = sorted(path.name for path in (models / "calibri" / "folder").iterdir())
    assert saved == [f"mine_0000{i}.safetensors" for i in (1, 2, 3)]
    loaded = CalibriLoadPreset.execute("folder/mine_00003.safetensors").args[0]
    assert loaded == preset


@pytest.mark.parametrize("prefix", ["../outside", "a/../../b", "", "/", ".."])
def test_presets_are_saved_nowhere_else(preset: Preset, prefix: str) -> None:
    assert "cannot name a file" in str(CalibriSavePreset.validate_inputs(filename_prefix=prefix))
    with pytest.raises(ValueError, match="cannot name a file"):
        save(preset, prefix)


def test_names_are_made_harmless(models: Path, preset: Preset) -> None:
    save(preset, 'a "b": <c>|d?')
    assert [path.name for path in (models / "calibri").iterdir()] == ["a-b-c-d_00001.safetensors"]


def test_full_disk_while_saving_leaves_nothing(
    models: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="free some space"):
        save(preset)
    assert list((models / "calibri").iterdir()) == []


def test_broken_presets_are_refused_before_the_run(models: Path, preset: Preset) -> None:
    save(preset)
    whole = (models / "calibri" / "mine_00001.safetensors").read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"this is no preset",
        "other": None,
        "metadata": whole.replace(b'schema\\": 1', b'schema\\": 9'),
    }
    assert broken["metadata"] != whole
    for name, data in broken.items():
        file = models / "calibri" / f"{name}.safetensors"
        if data is None:
            save_file({"weight": torch.zeros(2)}, file)
        else:
            file.write_bytes(data)
        sentence = CalibriLoadPreset.validate_inputs(preset_name=file.name)
        assert isinstance(sentence, str), name
        assert file.name in sentence
    assert CalibriLoadPreset.validate_inputs(preset_name="mine_00001.safetensors") is True


@pytest.mark.parametrize("name", ["absent.safetensors", "../../etc/passwd", "notes.txt"])
def test_presets_outside_the_folder_are_not_read(models: Path, name: str) -> None:
    (models / "calibri").mkdir(parents=True, exist_ok=True)
    (models / "calibri" / "notes.txt").write_text("no preset")
    assert "There is no preset" in str(CalibriLoadPreset.validate_inputs(preset_name=name))


def test_changed_preset_is_read_again(models: Path, preset: Preset) -> None:
    save(preset)
    file = models / "calibri" / "mine_00001.safetensors"
    before = CalibriLoadPreset.fingerprint_inputs(file.name)
    os.utime(file, (1, 1))
    assert CalibriLoadPreset.fingerprint_inputs(file.name) != before


def test_preset_acts_and_strength_zero_is_the_plain_model(
    model: Any, preset: Preset, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path)
    plain = sample(model, clip)

    def applied(strength: float) -> torch.Tensor:
        return sample(CalibriApply.execute(model, preset, strength, 0.0, 1.0).args[0], clip)

    assert torch.equal(applied(0.0), plain)
    half, full = applied(0.5), applied(1.0)
    assert not torch.allclose(half, full, atol=1e-3)
    assert not torch.allclose(half, plain, atol=1e-3)


def test_presets_for_other_models_are_refused(preset: Preset) -> None:
    with pytest.raises(ValueError, match="flux with 2 double and 2 single but the model is sd3"):
        CalibriApply.execute(make_model("sd3"), preset, 1.0, 0.0, 1.0)


def test_preset_of_another_model_of_the_family_warns(
    preset: Preset, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_model()
    diffusion_model(other).double_blocks[0].img_mod.lin.bias.add_(1.0)
    CalibriApply.execute(other, preset, 1.0, 0.0, 1.0)
    assert "found on another model" in caplog.text


def test_window_that_never_acts_is_refused(model: Any, preset: Preset) -> None:
    with pytest.raises(ValueError, match="would never act"):
        CalibriApply.execute(model, preset, 1.0, 0.7, 0.3)
    assert "so the preset would never act" in str(CalibriApply.validate_inputs(0.7, 0.3))
    assert CalibriApply.validate_inputs(0.3, 0.7) is CalibriApply.validate_inputs(None, 0.3) is True


def test_linked_name_has_no_file_yet() -> None:
    # ComfyUI gives None for an input that comes from another node.
    assert CalibriLoadPreset.fingerprint_inputs(preset_name=None) == 0.0


def test_models_of_other_families_are_named() -> None:
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "model_channels": 32,
            "out_channels": 4,
            "num_res_blocks": [1, 1],
            "channel_mult": (1, 2),
            "transformer_depth": [0, 0],
            "transformer_depth_output": [0, 0, 0, 0],
            "transformer_depth_middle": -1,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    model = ModelPatcher(config.get_model({}, ""), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="docs/backbones"):
        backbone_of(model)
