"""Checkpoints of the official code through the nodes: import, save, load, apply, export."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.official import OfficialLayout, coefficient_names
from comfyui_calibri.calibri.presets import Guidance, Member, Preset
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.official import CalibriExportCheckpoint, CalibriImportCheckpoint
from comfyui_calibri.nodes.patching import backbone_of, diffusion_model
from comfyui_calibri.nodes.presets import CalibriLoadPreset, CalibriSavePreset

from .dits.qwen_image import CASES as QWEN_IMAGE
from .tiny_patchers import make_clip, make_model, sample

pytestmark = pytest.mark.oldest

FLUX = OfficialLayout("flux", "gate", 1, {"double": 2, "single": 2})
SD3 = OfficialLayout("sd3", "gate", 2, {"joint": 2})
WORDS: dict[str, Any] = {"title": "", "base_model": "", "licence": ""}


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


_FOLDERS = dict(folder_paths.folder_names_and_paths)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ComfyUI's models, input and output folders in it."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(
        folder_paths,
        "folder_names_and_paths",
        {name: (list(paths), set(kinds)) for name, (paths, kinds) in _FOLDERS.items()},
    )
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    for folder in ("input", "output", "models/calibri"):
        (tmp_path / folder).mkdir(parents=True)
    folders.register()
    folder_paths.filename_list_cache.clear()
    return tmp_path


@pytest.fixture(scope="module")
def flux() -> Any:
    with torch.inference_mode():
        return make_model()


def solution(layout: OfficialLayout, *weights: float) -> list[float]:
    """Coefficients that are not 1, all different and exact in float32, and these weights."""
    count = layout.total - layout.members
    return [0.5 + (2 * i + 1) / 256 for i in range(count)] + list(weights)


def write(file: Path, layout: OfficialLayout, *weights: float, **changes: Any) -> dict[str, Any]:
    held = {
        "step": 480,
        "train_best": 0.43125,
        "train_mean": float("-inf"),
        "val": None,
        "solution": solution(layout, *weights),
        "shapes": layout.shapes,
        "sigma": 0.125,
        "timestamp": 1774569600,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(held | changes))
    return held


def read(model: Any, name: str, members: str = "auto", **changes: Any) -> tuple[Preset, str]:
    options = {"checkpoint": name, "members": members, **WORDS, **changes}
    cfg = options.pop("cfg", 0.0)
    checked = CalibriImportCheckpoint.validate_inputs(**options)
    assert checked is True, checked
    preset, text = CalibriImportCheckpoint.execute(model=model, cfg=cfg, **options).args
    return preset, text


def test_import_save_load_apply_is_what_the_taps_give(flux: Any, root: Path) -> None:
    """The file's numbers, put on the taps by hand, against the whole way through the nodes."""
    held = write(root / "input" / "cmaes_step_0480.json", FLUX, 1.0)
    preset, text = read(flux, "input/cmaes_step_0480.json")
    assert "flux with 2 double and 2 single, by gate: 10 coefficients" in text
    assert "Step 480, best training reward 0.43125. One member with the weight 1." in text
    CalibriSavePreset.execute(preset, "imported")
    loaded = CalibriLoadPreset.execute("imported_00001.safetensors").args[0]
    assert loaded.origin == "cmaes_step_0480.json of Calibri's official code, step 480"
    clip = make_clip(root)
    found = sample(CalibriApply.execute(flux, loaded, 1.0, 0.0, 1.0).args[0], clip)

    model = diffusion_model(flux)
    backbone = read_backbone(model)
    by_name = dict(zip(coefficient_names(FLUX), held["solution"], strict=False))
    gains = torch.tensor([[by_name[tap.name] for tap in backbone.taps]])
    with GainTaps(model, backbone).scaled(gains):
        expected = sample(flux, clip)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, sample(flux, clip), atol=1e-3)


def test_import_export_import(flux: Any, root: Path) -> None:
    write(root / "models" / "calibri" / "run" / "a.json", FLUX, 0.75)
    preset, _ = read(flux, "models/calibri/run/a.json")
    for number in (1, 2):
        CalibriExportCheckpoint.execute(preset, "sub/mine", False)
        exported = root / "output" / "calibri" / "sub" / f"mine_000{number}.json"
        assert exported.is_file()
    (root / "input" / "b.json").write_bytes(exported.read_bytes())
    again, _ = read(flux, "input/b.json")
    assert again.members == preset.members
    assert (again.family, again.blocks, again.granularity) == ("flux", preset.blocks, "gate")


def test_words_and_guidance_are_kept(root: Path) -> None:
    write(root / "input" / "a.json", SD3, 7.0, -5.0)
    words = {"title": "A", "base_model": "SD3.5", "licence": "MIT"}
    preset, text = read(make_model("sd3"), "input/a.json", **words)
    assert (preset.title, preset.base_model, preset.licence) == ("A", "SD3.5", "MIT")
    assert preset.created == "2026-03-27T00:00:00+00:00"
    assert [member.weight for member in preset.members] == [7.0, -5.0]
    assert preset.guidance == Guidance(6.5)
    assert "prompt and negative prompt with the weights 7, -5, in place of CFG at 6.5" in text
    CalibriSavePreset.execute(preset, "cfg")
    assert CalibriLoadPreset.execute("cfg_00001.safetensors").args[0] == preset
    assert read(make_model("sd3"), "input/a.json", cfg=7.0)[0].guidance == Guidance(7.0)
    as_ensemble, text = read(make_model("sd3"), "input/a.json", "ensemble")
    assert as_ensemble.guidance is None
    assert "An ensemble of 2 members with the weights 7, -5." in text


def test_qwens_dead_coefficients_do_not_wake_up(root: Path) -> None:
    (case,) = [case for case in QWEN_IMAGE if case.name == "Qwen-Image"]
    whole = torch.nn.Module()
    whole.diffusion_model = case.make()
    model = ModelPatcher(whole, torch.device("cpu"), torch.device("cpu"))
    backbone = backbone_of(model)
    count = backbone.blocks["block"]
    layout = OfficialLayout("qwen-image", "gate", 1, {"block": count})
    write(root / "input" / "a.json", layout, 1.0)

    preset, text = read(model, "input/a.json")
    values = preset.members[0].coefficients
    assert tuple(values) == coefficient_space(backbone, "gate").names
    assert {name for name, value in values.items() if value == 1.0} == {
        name for name in values if ".mlp." in name
    }
    assert f"{2 * count + 1} of which do nothing in the official code" in text


def test_models_that_do_not_fit_are_refused(flux: Any, root: Path) -> None:
    write(root / "input" / "a.json", SD3, 7.0, -6.0)
    with pytest.raises(ValueError, match="is for sd3 with 2 joint but the model is flux with 2"):
        read(flux, "input/a.json")
    write(root / "input" / "b.json", replace(FLUX, blocks={"double": 19, "single": 38}), 1.0)
    with pytest.raises(ValueError, match=r"with 19 double and 38 single but .* 2 double and 2"):
        read(flux, "input/b.json")
    write(root / "input" / "c.json", replace(SD3, second_attention_blocks=(0,)), 7.0, -6.0)
    with pytest.raises(ValueError, match="second attention in 1 blocks but the model has 0"):
        read(make_model("sd3"), "input/c.json")


def test_checkpoints_are_listed_from_both_folders(root: Path) -> None:
    write(root / "input" / "run" / "a.json", FLUX, 1.0)
    write(root / "models" / "calibri" / "b.JSON", FLUX, 1.0)
    (root / "input" / "c.txt").write_text("no checkpoint")
    assert folders.checkpoint_files() == ["input/run/a.json", "models/calibri/b.JSON"]
    for name in folders.checkpoint_files():
        assert folders.checkpoint_path(name).is_file()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "No checkpoint is chosen; put"),
        ("input/absent.json", "There is no checkpoint"),
        ("models/calibri/absent.json", "There is no checkpoint"),
        ("secret.json", "There is no checkpoint"),
        ("/etc/passwd", "There is no checkpoint"),
        ("input/../secret.json", "lies outside ComfyUI's input folder"),
        ("input//etc/passwd", "lies outside ComfyUI's input folder"),
        (r"input/\\server\share\a.json", "lies outside ComfyUI's input folder"),
        ("models/calibri/../../secret.json", "There is no checkpoint"),
        (r"models/calibri/..\..\secret.json", "There is no checkpoint"),
        ("models/calibri/C:secret.json", "There is no checkpoint"),
        ("input/a.txt", "There is no checkpoint"),
        ("input/text.json", "is truncated or no JSON"),
        ("input/workflow.json", "has no 'solution' with its 'shapes'"),
        ("input/bounds.json", "Number 0 .* is 3.0 and not a number from -1 to 2"),
    ],
)
def test_other_files_are_refused_before_the_run(root: Path, name: str, problem: str) -> None:
    write(root / "secret.json", FLUX, 1.0)
    write(root / "input" / "a.txt", FLUX, 1.0)
    write(root / "input" / "bounds.json", FLUX, 1.0, solution=[3.0] + [1.0] * 10)
    (root / "input" / "text.json").write_text("no json")
    (root / "input" / "workflow.json").write_text('{"nodes": []}')
    sentence = CalibriImportCheckpoint.validate_inputs(checkpoint=name, members="auto", **WORDS)
    assert isinstance(sentence, str)
    assert re.search(problem, sentence), sentence


def test_other_widgets_are_checked_before_the_run(root: Path) -> None:
    write(root / "input" / "a.json", FLUX, 1.0)

    def check(**changes: Any) -> str:
        options = {"checkpoint": "input/a.json", "members": "auto", **WORDS, **changes}
        return str(CalibriImportCheckpoint.validate_inputs(**options))

    assert check() == "True"
    assert "'both' do not exist; choose auto, ensemble" in check(members="both")
    assert "has 1 members but" in check(members="conditional and unconditional (CFG)")
    assert "The title has 1001 characters; shorten it" in check(title="x" * 1001)
    # ComfyUI gives None for an input that comes from another node.
    assert check(checkpoint=None, members=None, title=None) == "True"
    assert "cannot name a file" in str(
        CalibriExportCheckpoint.validate_inputs(filename_prefix="../outside")
    )


def test_changed_checkpoint_is_read_again(root: Path) -> None:
    write(root / "input" / "a.json", FLUX, 1.0)
    before = CalibriImportCheckpoint.fingerprint_inputs("input/a.json", members="auto")
    os.utime(root / "input" / "a.json", (1, 1))
    assert CalibriImportCheckpoint.fingerprint_inputs("input/a.json", members="auto") != before
    assert CalibriImportCheckpoint.fingerprint_inputs(None, members="auto") == 0.0


def test_export_refuses_what_the_official_code_would_ignore(root: Path) -> None:
    preset = Preset("qwen-image", {"block": 1}, "block", (Member({"block.0": 0.5}),))
    with pytest.raises(ValueError, match=r"ignores .* 'block\.0\.mlp\.image'.*allow dropping"):
        CalibriExportCheckpoint.execute(preset, "mine", False)
    with pytest.raises(ValueError, match="wan with 2 block, which the official code does not know"):
        CalibriExportCheckpoint.execute(
            replace(preset, family="wan", blocks={"block": 2}), "mine", True
        )
    assert list((root / "output").iterdir()) == []
    CalibriExportCheckpoint.execute(preset, "mine", True)
    held = json.loads((root / "output" / "calibri" / "mine_0001.json").read_text())
    assert held["solution"] == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_nothing_is_exported_elsewhere(flux: Any, root: Path) -> None:
    write(root / "input" / "a.json", FLUX, 1.0)
    preset, _ = read(flux, "input/a.json")
    with pytest.raises(ValueError, match="cannot name a file"):
        CalibriExportCheckpoint.execute(preset, "../outside", False)
    assert backbone_of(flux).family == "flux"
