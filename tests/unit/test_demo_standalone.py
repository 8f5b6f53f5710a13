"""The demo without ComfyUI: a calibration and an evaluation, small, with all that they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.demo.painter import SCORES
from comfyui_calibri.demo.pictures import DemoModels
from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.standalone import (
    BEFORE_AFTER,
    JOURNAL,
    PRESET,
    REPORT,
    REPORT_PICTURE,
    Effort,
    calibrate_demo,
    evaluate_demo,
)
from comfyui_calibri.demo.weights import WEIGHTS

SMALL = Effort(
    generations=1,
    prompts=2,
    held_out=2,
    bucket_size=1,
    validate_every=1,
    evaluated=2,
    evaluated_steps=(1, 2),
)


@pytest.fixture(scope="module")
def models() -> DemoModels:
    return DemoModels.load()


def test_a_calibration_leaves_its_report_and_goes_on_when_called_again(
    models: DemoModels, tmp_path: Path
) -> None:
    said: list[str] = []
    counted: list[tuple[int, int]] = []
    preset, place = calibrate_demo(
        models, tmp_path / "run", SMALL, said.append, lambda *count: counted.append(count)
    )
    assert place == tmp_path / "run"
    assert {JOURNAL, REPORT, REPORT_PICTURE, BEFORE_AFTER} <= {f.name for f in place.iterdir()}
    assert (place / PRESET).exists() == (preset is not None)
    assert "Generation 1 of 1" in said[0]
    assert "2 held-out prompts" in said[1]
    report = json.loads((place / REPORT).read_text())
    assert report["counts"]["images"] > 16
    assert counted[-1][0] == counted[-1][1]

    counted.clear()
    again, same = calibrate_demo(models, tmp_path / "run", SMALL, said.append)
    assert same == place
    assert json.loads((place / REPORT).read_text())["counts"] == report["counts"]
    assert (again is None) == (preset is None)
    if again is not None and preset is not None:
        assert again.members == preset.members


def test_another_run_leaves_the_first_alone(models: DemoModels, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = calibrate_demo(models, tmp_path / "run", SMALL, str)[1]
    before = (first / REPORT).read_bytes()
    second = calibrate_demo(models, tmp_path / "run", replace(SMALL, seed=2), str)[1]
    assert second == tmp_path / "run-2"
    assert (first / REPORT).read_bytes() == before


def test_files_of_a_run_of_comfyui_are_left_alone(models: DemoModels, tmp_path: Path) -> None:
    for name, taken in (("run", PRESET), ("run-2", REPORT), ("run-3", BEFORE_AFTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / taken).write_bytes(b"mine")
    assert calibrate_demo(models, tmp_path / "run", SMALL, str)[1] == tmp_path / "run-4"
    for name, taken in (("run", PRESET), ("run-2", REPORT), ("run-3", BEFORE_AFTER)):
        assert (tmp_path / name / taken).read_bytes() == b"mine"


def test_an_evaluation_compares_by_the_reward_and_by_the_checker(
    models: DemoModels, tmp_path: Path
) -> None:
    preset = load_preset(WEIGHTS / "calibri" / "calibri-demo.safetensors")
    said: list[str] = []
    files = evaluate_demo(models, preset, tmp_path / "evaluation", SMALL, said.append)
    report = json.loads(files.numbers.read_text())
    assert report["rewards"] == list(SCORES)
    assert [setting["steps"] for setting in report["settings"]] == [1, 2]
    assert len(report["cells"]) == 4
    assert said
    assert files.page.exists()
    # A prompt that selected the preset would flatter it.
    assert not set(report["prompts"]) & set(generate_prompts(SMALL.held_out, 1, "test"))
