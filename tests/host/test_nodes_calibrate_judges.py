"""Calibrate's end: other rewards judge it, also later, and no preset where nothing helps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.nodes.calibrate import CalibriCalibrate

from .tiny_fixtures import inference as inference
from .tiny_inputs import HELD_OUT, calibration_inputs
from .tiny_patchers import Brightness

pytestmark = pytest.mark.oldest


class Darkness(Brightness):
    """Falls as the search gains."""

    name = "darkness"
    weights = "d1"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return 1 - super().score(images, prompts)


class Constant(Brightness):
    """Nothing is better than anything."""

    name = "constant"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(images))


@pytest.fixture
def inputs(tmp_path_factory: pytest.TempPathFactory, output: Path) -> dict[str, Any]:
    """A small run, in output and user folders of its own."""
    return {
        **calibration_inputs(Path(tmp_path_factory.mktemp("clip"))),
        "held_out": (*HELD_OUT, "two blue squares", "a cross"),
        "granularity": "block",
        "generations": 3,
        "validate_every": 3,
    }


def test_a_reward_connected_later_judges_a_finished_run(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    alone = CalibriCalibrate.execute(**inputs).args[0]
    result = CalibriCalibrate.execute(**inputs, other_reward_2=Darkness())
    preset, (text,) = result.args[0], result.ui["text"]
    assert preset.members == alone.members
    searched, other = preset.rewards
    assert searched == alone.rewards[0]
    assert (other.name, other.searched, other.samples) == ("darkness", False, 4)
    # The same pictures from the same noise.
    assert other.after - other.before == pytest.approx(searched.before - searched.after, abs=1e-5)
    assert preset.diversity == alone.diversity
    assert preset.diversity.before > 0
    assert preset.prompts.count == 4
    assert preset.title.endswith("(no gain shown)") != preset.rewards[0].rose
    assert ("darkness fell" in text) == other.fell
    folder = tmp_path / "calibri" / "trial"
    assert load_preset(folder / "preset.safetensors").rewards == preset.rewards
    judges = json.loads((folder / "report.json").read_text(encoding="utf-8"))["judges"]
    assert [judge["name"] for judge in judges] == ["darkness", "diversity"]
    journal = tmp_path / "calibri" / "runs" / "trial" / "journal.sqlite"
    with Journal.read(journal) as kept:
        roles = [e.role for e in kept.evaluations() if e.role.startswith("judging")]
    assert roles == ["judging diversity", "judging darkness d1"]


def test_where_nothing_helps_there_is_no_preset_unless_asked_for(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    inputs |= {"reward": Constant(), "generations": 1}
    saved = tmp_path / "calibri" / "trial" / "preset.safetensors"
    result = CalibriCalibrate.execute(**inputs)
    (text,) = result.ui["text"]
    assert "was better than the plain model" in text
    assert "No preset was saved" in text
    assert {*result.args[0].members[0].coefficients.values()} == {1.0}
    assert not saved.exists()
    assert (saved.parent / "report.png").is_file()
    kept = CalibriCalibrate.execute(**inputs, keep_anyway=True)
    assert "keep_anyway is on" in kept.ui["text"][0]
    assert load_preset(saved) == kept.args[0]
    assert kept.args[0].title.endswith("(no better than the plain model)")
    CalibriCalibrate.execute(**inputs)
    assert not saved.exists()


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"other_reward_1": Brightness()}, "other_reward_1 is brightness"),
        ({"other_reward_1": Darkness(), "other_reward_3": Darkness()}, "other_reward_3 is dark"),
    ],
)
def test_a_reward_connected_twice_is_refused(
    inputs: dict[str, Any], others: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"{named}.*connected already; connect"):
        CalibriCalibrate.execute(**inputs, **others)


def test_a_reward_named_as_the_judge_that_every_run_has_is_refused(inputs: dict[str, Any]) -> None:
    class Diversity(Darkness):
        name = "diversity"

    with pytest.raises(ValueError, match="other_reward_3 is named diversity"):
        CalibriCalibrate.execute(**inputs, other_reward_3=Diversity())
