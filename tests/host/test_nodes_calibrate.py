"""The Calibrate node: a call is a run, a cancelled one goes on, other settings never overwrite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from PIL import Image

from comfyui_calibri.calibri.evaluation import RewardError
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.calibrate import CalibriCalibrate

from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import HELD_OUT, TRAINING, calibration_inputs
from .tiny_patchers import Brightness

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small run: 6 images for each of 16 candidates in 2 generations."""
    with torch.inference_mode():
        given = calibration_inputs(Path(tmp_path_factory.mktemp("clip")))
        return {**given, "sampler": "euler_ancestral"}


def calibrate(inputs: dict[str, Any], **changes: Any) -> io.NodeOutput:
    return CalibriCalibrate.execute(**{**inputs, **changes})


def runs(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "calibri" / "runs").iterdir())


class Stops(Brightness):
    """Presses Cancel, as the page would, while the reward's call number `at` runs."""

    def __init__(self, at: int) -> None:
        self.left = at

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            comfy.model_management.interrupt_current_processing()
        return super().score(images, prompts)


def test_run_leaves_preset_report_and_pictures(inputs: dict[str, Any], output: Path) -> None:
    result = calibrate(inputs)
    preset, report = result.args
    folder = output / "calibri" / "trial"
    assert load_preset(folder / "preset.safetensors").members[0].coefficients.keys() == (
        preset.members[0].coefficients.keys()
    )
    assert report.shape[0] == 1
    assert report.shape[-1] == 3
    assert 0.0 <= float(report.min()) < float(report.max()) <= 1.0
    for shown in result.ui["images"]:
        Image.open(output / shown["subfolder"] / shown["filename"]).verify()
    assert json.loads((folder / "report.json").read_text())["gain"]["low"] is not None
    (text,) = result.ui["text"]
    assert "held-out prompts" in text
    assert str(folder) in text
    # The file and the output have the same small picture.
    thumbnail = load_preset(folder / "preset.safetensors").thumbnail
    Image.open(BytesIO(thumbnail)).verify()
    assert thumbnail == preset.thumbnail
    # The preset goes straight into Apply Calibri.
    CalibriApply.execute(inputs["model"], preset, 1.0, 0.0, 1.0)


@pytest.mark.parametrize("at", [1, 6])
def test_cancelled_run_goes_on_as_if_it_had_not_been(
    inputs: dict[str, Any], output: Path, at: int
) -> None:
    whole = calibrate(inputs, run_name="whole").args[0]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrate(inputs, reward=Stops(at))
    resumed = calibrate(inputs).args[0]
    assert runs(output) == ["trial", "whole"]
    assert resumed.members == whole.members
    assert resumed.rewards == whole.rewards
    rewards = [
        [evaluation.rewards for evaluation in journal.evaluations()]
        for journal in (
            Journal.read(output / "calibri" / "runs" / run / "journal.sqlite")
            for run in runs(output)
        )
    ]
    for one, other in zip(*rewards, strict=True):
        np.testing.assert_array_equal(one, other)


def test_finished_run_is_read_not_repeated(inputs: dict[str, Any], output: Path) -> None:
    first = calibrate(inputs).args[0]
    again = calibrate(inputs, reward=Stops(1)).args[0]
    assert (first.members, first.rewards) == (again.members, again.rewards)
    assert runs(output) == ["trial"]


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"cfg": 2.0}, {"prompts": ("a blue square", "a star")}, {"negative": "red"}],
)
def test_other_settings_get_a_folder_of_their_own(
    inputs: dict[str, Any], output: Path, change: dict[str, Any]
) -> None:
    calibrate(inputs, generations=1)
    before = (output / "calibri" / "trial" / "report.json").read_bytes()
    calibrate(inputs, generations=1, **change)
    assert runs(output) == ["trial", "trial-2"]
    assert (output / "calibri" / "trial" / "report.json").read_bytes() == before
    calibrate(inputs, generations=1, **change)
    assert runs(output) == ["trial", "trial-2"]


def test_patched_model_is_another_run(inputs: dict[str, Any], output: Path) -> None:
    calibrate(inputs, generations=1)
    patched = inputs["model"].clone()
    weight = "diffusion_model.final_layer.linear.weight"
    shape = patched.model.state_dict()[weight].shape
    patched.add_patches({weight: ("diff", (torch.full(shape, 0.01),))})
    calibrate(inputs, generations=1, model=patched)
    assert runs(output) == ["trial", "trial-2"]


def test_a_reward_of_other_weights_is_another_run(inputs: dict[str, Any], output: Path) -> None:
    for weights in ("1a", "2b", "1a"):
        reward = Brightness()
        reward.weights = weights
        calibrate(inputs, generations=1, reward=reward)
    assert runs(output) == ["trial", "trial-2"]


def test_another_schedule_is_another_run(inputs: dict[str, Any], output: Path) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    calibrate(inputs, generations=1)
    (shifted,) = ModelSamplingFlux().patch(inputs["model"], 3.0, 2.0, 64, 64)
    calibrate(inputs, generations=1, model=shifted)
    assert runs(output) == ["trial", "trial-2"]


def test_more_generations_continue_the_run(inputs: dict[str, Any], output: Path) -> None:
    calibrate(inputs, generations=1)
    longer = calibrate(inputs, generations=2).args[0]
    assert runs(output) == ["trial"]
    at_once = calibrate(inputs, generations=2, run_name="whole").args[0]
    assert longer.members == at_once.members
    assert longer.rewards == at_once.rewards


def test_prompts_of_any_language_find_their_run_again(inputs: dict[str, Any], output: Path) -> None:
    prompts = {"prompts": ("ein schöner Kreis", "青い四角"), "held_out": ("größer", "青")}
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrate(inputs, reward=Stops(2), generations=1, **prompts)
    calibrate(inputs, generations=1, **prompts)
    assert runs(output) == ["trial"]
    assert (output / "calibri" / "trial" / "report.json").exists()


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (lambda n: torch.full((n,), float("nan")), "must be a finite number"),
        (lambda n: torch.zeros(n + 1), "one number per image"),
    ],
)
def test_unusable_rewards_stop_the_run_and_keep_it(
    inputs: dict[str, Any], output: Path, scores: Any, problem: str
) -> None:
    class Breaks(Brightness):
        """Fails at its fourth call."""

        calls = 0

        def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            self.calls += 1
            return scores(len(prompts)) if self.calls == 4 else super().score(images, prompts)

    with pytest.raises(RewardError, match=problem):
        calibrate(inputs, reward=Breaks())
    mended = calibrate(inputs).args[0]
    assert mended.members == calibrate(inputs, run_name="whole").args[0].members
    assert runs(output) == ["trial", "whole"]


def test_without_held_out_prompts_some_are_held_out(inputs: dict[str, Any], output: Path) -> None:
    calibrate(inputs, prompts=(*TRAINING, *HELD_OUT), held_out=None, generations=1)
    config = json.loads((output / "calibri" / "runs" / "trial" / "config.json").read_text())
    assert len(config["validation_prompts"]) == 2
    assert sorted((*config["prompts"], *config["validation_prompts"])) == sorted(
        (*TRAINING, *HELD_OUT)
    )


def test_paper_profile_searches_as_published(inputs: dict[str, Any], output: Path) -> None:
    preset = calibrate(inputs, profile="paper", generations=1).args[0]
    folder = output / "calibri" / "trial"
    assert json.loads((folder / "report.json").read_text())["run"]["profile"] == "paper"
    with Journal.read(output / "calibri" / "runs" / "trial" / "journal.sqlite") as journal:
        (searched,) = journal.evaluations("generation")
    count = len(preset.members[0].coefficients)
    assert searched.vectors.shape == (4 + int(3 * np.log(count)), count)


@pytest.mark.parametrize("name", ["../elsewhere", "", "a/../../b", "///"])
def test_run_names_that_lead_elsewhere_are_refused_before_the_run(name: str) -> None:
    assert "cannot name a file" in str(CalibriCalibrate.validate_inputs(run_name=name))


def test_full_disk_at_the_end_keeps_the_run(
    inputs: dict[str, Any], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        folder = output / "calibri" / "trial"
        calibrate(inputs, generations=1)
        for file in folder.iterdir():
            file.unlink()
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="free some"):
            calibrate(inputs, generations=1)
    assert not list(folder.iterdir())
    calibrate(inputs, generations=1)
