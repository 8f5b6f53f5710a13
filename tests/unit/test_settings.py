"""A calibration's settings: declared once, written and read again, refused with a mend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_calibri.calibri.coefficients import GRANULARITIES
from comfyui_calibri.calibri.ensemble_space import MAX_MEMBERS
from comfyui_calibri.calibri.search import PROFILES
from comfyui_calibri.calibri.settings import (
    SETTINGS,
    ModelNames,
    RunSettings,
    SettingsError,
    widget,
)
from comfyui_calibri.calibri.settings_file import read_settings, with_prompts, write_settings

FULL = RunSettings(
    name="night",
    model=ModelNames(diffusion_model="flux.safetensors", text_encoders=("t5", "clip_l"), vae="ae"),
    prompts=('a "red" circle', "ein grüner Stern", "two\nlines"),
    held_out=("x", "y"),
    reward="PickScore",
    other_rewards=("ImageReward",),
    start_from="begin.safetensors",
    values={**RunSettings().values, "steps": 4, "cfg": 2.5, "negative": "blurry", "seed": 2**62},
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "night.toml"
    for settings in (FULL, RunSettings()):
        write_settings(file, settings, "A note.\nOf two lines.")
        assert read_settings(file) == settings
        assert file.read_text().startswith("# A note.\n# Of two lines.\n")


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    file = tmp_path / "short.toml"
    file.write_text('reward = "demo"\n[sampling]\ncfg = 3\n')
    found = read_settings(file)
    assert found == replace(
        RunSettings(), reward="demo", values={**RunSettings().values, "cfg": 3.0}
    )
    assert type(found.values["cfg"]) is float


def test_prompts_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n# not this\ntwo\n")
    settings = replace(RunSettings(), prompts="p.txt", held_out=("three",))
    found = with_prompts(settings, lambda name: tmp_path / name)
    assert (found.prompts, found.held_out) == (("one", "two"), ("three",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sampling]\nsteps = 0", "steps is 0: give a whole number from 1 to 200."),
        ("[sampling]\nsteps = 1.5", "steps is 1.5: give a whole number from 1 to 200."),
        ("[sampling]\ncfg = nan", "cfg is nan: give a number from 0 to 30."),
        ("[search]\nstop_early = 1", "stop_early is 1: give true or false."),
        ('[search]\ngranularity = "gates"', "give one of block, layer, gate."),
        ("[search]\nsteps = 4", "There is no setting 'steps'"),
        ("[sampling]\nstep = 4", "There is no setting 'step': 'steps' may be meant."),
        ("[model]\nvea = 'x'", "'model.vae' may be meant."),
        ("model = 'x'", "model is 'x': write a table, [model]."),
        ("prompts = [1]", "prompts is [1]: give a list of texts."),
        ("reward = 3", "reward is 3: give a text."),
        ("reward = ", "cannot be used"),
        ("[[sampling]]", "write a table"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_file_and_the_mend(
    text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_settings(file)
    assert str(file) in str(refused.value)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_settings(tmp_path / "binary.toml")


def test_choices_and_limits_are_those_of_the_search() -> None:
    assert SETTINGS["granularity"].choices == GRANULARITIES
    assert SETTINGS["profile"].choices == PROFILES
    assert SETTINGS["members"].most == MAX_MEMBERS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("steps", {"default": 15, "min": 1, "max": 200}),
        ("cfg", {"default": 1.0, "min": 0.0, "max": 30.0}),
        ("seed", {"default": 0, "min": 0, "max": 2**63 - 1}),
        ("keep_anyway", {"default": False}),
    ],
)
def test_a_widget_has_its_settings_default_and_range(name: str, expected: dict[str, Any]) -> None:
    found = widget(name)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(v) for v in expected.values()]
