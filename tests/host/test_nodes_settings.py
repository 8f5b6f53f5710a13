"""Load Calibration Settings: files of the input folder and of runs, and no others."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest

from comfyui_calibri.calibri.settings import RunSettings
from comfyui_calibri.calibri.settings_file import write_settings
from comfyui_calibri.nodes.model_origin import model_names, reward_names
from comfyui_calibri.nodes.settings import CalibriLoadSettings, settings_files

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

PROMPTS = ("a red circle", "a blue star")


@pytest.fixture
def input_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(folder))
    return folder


def test_own_files_and_those_of_runs_are_listed_and_read(input_folder: Path, output: Path) -> None:
    run = output / "calibri" / "night-2" / "settings.toml"
    run.parent.mkdir(parents=True)
    write_settings(run, RunSettings(name="night", prompts=PROMPTS, held_out=("x", "y")))
    (input_folder / "p.txt").write_text("\n".join(PROMPTS))
    (input_folder / "own.toml").write_text('prompts = "p.txt"\n[sampling]\nsteps = 3\n')
    assert settings_files() == ["own.toml", "output/calibri/night-2/settings.toml"]

    settings, prompts, held_out = CalibriLoadSettings.execute(settings_files()[1]).args
    assert (settings.name, prompts, held_out) == ("night", PROMPTS, ("x", "y"))
    settings, prompts, held_out = CalibriLoadSettings.execute("own.toml").args
    assert (settings.values["steps"], prompts, held_out) == (3, PROMPTS, None)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.toml",
        "/etc/secret.toml",
        "output/calibri/../../secret.toml",
        "output/calibri/night/../../../secret/settings.toml",
        "notes.txt",
        "none",
    ],
)
def test_nothing_outside_is_read(name: str, input_folder: Path, output: Path) -> None:
    for place in (output.parent, output, input_folder.parent):
        (place / "secret.toml").write_text('prompts = ["mine"]')
    assert isinstance(CalibriLoadSettings.validate_inputs(name), str)
    with pytest.raises(ValueError, match=r"settings|outside|cannot|not a \.toml"):
        CalibriLoadSettings.execute(name)


def test_a_file_names_no_prompts_outside(input_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("mine")
    (input_folder / "own.toml").write_text('prompts = "../secret.txt"')
    assert "outside" in str(CalibriLoadSettings.validate_inputs("own.toml"))


def test_files_behind_other_nodes_are_not_known() -> None:
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "f", "weight_dtype": "default"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0]}},
        "3": {
            "class_type": "DualCLIPLoader",
            "inputs": {"clip_name1": "t5", "clip_name2": "l", "type": "flux"},
        },
        "4": {"class_type": "VAELoader", "inputs": {"vae_name": "ae"}},
        "5": {"class_type": "CalibriLoadReward", "inputs": {"reward": "PickScore"}},
        "9": {"inputs": {"model": ["1", 0], "clip": ["3", 0], "vae": ["4", 0], "reward": ["5", 0]}},
    }
    found = model_names(graph, "9")
    assert (found.diffusion_model, found.weight_dtype, found.vae) == ("f", "", "ae")
    assert (found.text_encoders, found.text_encoder_type) == (("t5", "l"), "flux")
    assert reward_names(graph, "9", ("reward", "other_reward_1")) == {"reward": "PickScore"}
    graph["9"]["inputs"]["model"] = ["2", 0]
    assert model_names(graph, "9").diffusion_model == ""
    assert model_names({}, "9").diffusion_model == ""
