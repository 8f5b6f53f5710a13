"""An analysis on a toy whose gains are known: what it measures, resumes, and suggests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comfyui_calibri.calibri.analysis import (
    Analysis,
    AnalysisConfig,
    AnalysisError,
    analyse,
    parse_scales,
    summarise,
)
from comfyui_calibri.calibri.journal import Journal, JournalError
from comfyui_calibri.calibri.selection import Interval
from comfyui_calibri.calibri.skip_layers import suggest_layers

from .exact_run import SPACE, ExactEvaluator, Interrupted

CONFIG = AnalysisConfig(
    prompts=("a", "b", "c", "d"),
    reward="test",
    names=(SPACE.names[0], *SPACE.names[3:5]),
    scales=(0.0, 1.5),
    images_per_prompt=2,
    seed=4,
)
VARIANTS = 1 + 3 * 2


class Toy(ExactEvaluator):
    """The first coefficient is worth 3 of reward each, the next nothing, the last one is best at
    0; a sample's own luck is common to all variants."""

    def reward(self, vector, sample):
        luck = np.random.default_rng(sample.seed).standard_normal(2)
        return (
            3 * vector[0] - vector[4] ** 2 + 0.1 * luck[0] * vector[3] + 10 * luck[1]
        ) + sample.prompt


def run(path: Path, evaluator: ExactEvaluator | None = None, **changes) -> Analysis:
    with Journal.open(path) as journal:
        return analyse(replace(CONFIG, **changes), SPACE, evaluator or Toy(), journal)


def test_gains_are_paired_with_the_plain_model_on_the_same_noise(tmp_path: Path) -> None:
    found = run(tmp_path / "a")
    assert found.gain[0] == pytest.approx([-3.0, 1.5])
    assert found.gain[2] == pytest.approx([1.0, -1.25])
    # What is common to a sample cancels: its luck of 10 leaves no band.
    assert found.high[0] - found.low[0] == pytest.approx([0, 0], abs=1e-9)
    assert found.high[1, 0] - found.low[1, 0] > 0.01
    assert found.plain.high - found.plain.low > 1.0
    assert found.better.tolist() == [[False, True], [False, False], [True, False]]
    assert found.worse[0].tolist() == [True, False]
    assert found.images == VARIANTS * 4 * 2


def test_the_plain_model_is_one_row_and_each_variant_moves_one_coefficient() -> None:
    vectors = CONFIG.vectors(SPACE)
    assert vectors.shape == (VARIANTS, len(SPACE.names))
    assert (vectors[0] == SPACE.identity).all()
    assert ((vectors[1:] != SPACE.identity).sum(axis=1) == 1).all()
    assert vectors[4, 3] == 1.5


@pytest.mark.parametrize("stop_at", [0, 1, 3, 4])
def test_a_stopped_analysis_goes_on_and_repeats_nothing(tmp_path: Path, stop_at: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", first := Toy(stop_at=stop_at))
    rest = Toy()
    resumed = run(tmp_path / "stopped", rest)
    assert resumed.gain.tolist() == whole.gain.tolist()
    assert sum(first.batches) + sum(rest.batches) == VARIANTS * 8
    again = Toy(stop_at=0)
    assert run(tmp_path / "stopped", again).gain.tolist() == whole.gain.tolist()


def test_more_images_go_on_with_the_same_analysis(tmp_path: Path) -> None:
    run(tmp_path / "a", images_per_prompt=1)
    more = Toy()
    found = run(tmp_path / "a", more, images_per_prompt=2)
    assert sum(more.batches) == VARIANTS * 4
    assert found.gain.tolist() == run(tmp_path / "b").gain.tolist()


def test_another_analysis_is_refused_with_what_changed(tmp_path: Path) -> None:
    run(tmp_path / "a")
    with pytest.raises(JournalError, match=r"scales.*Give this analysis another name"):
        run(tmp_path / "a", scales=(0.0, 0.5))


def test_batches_too_large_are_halved(tmp_path: Path) -> None:
    assert run(tmp_path / "a", Toy(memory=4)).gain == pytest.approx(run(tmp_path / "b").gain)


def test_callbacks_count_images_and_hear_rounds(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    rounds: list[Analysis] = []
    with Journal.open(tmp_path / "a") as journal:
        analyse(CONFIG, SPACE, Toy(), journal, lambda *c: counts.append(c), rounds.append)
    assert counts[-1] == (VARIANTS * 8, VARIANTS * 8)
    assert [found.images_per_prompt for found in rounds] == [1, 2]


def test_nothing_is_said_before_the_first_round_is_whole(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "a", Toy(stop_at=1))
    with Journal.read(tmp_path / "a") as journal, pytest.raises(JournalError, match="let it go on"):
        summarise(CONFIG, journal)


def test_scales_are_read_from_text() -> None:
    assert parse_scales("1.5, 0, 1, 0.9 0.5,-0") == (0.0, 0.5, 0.9, 1.5)


@pytest.mark.parametrize("text", ["", "1", "0, x", "nan", "2.5", "-1.1", "0 " + "0.5,1.2;3"])
def test_what_are_no_scales_is_refused(text: str) -> None:
    with pytest.raises(AnalysisError, match=r"no scale|There are 0 scales"):
        parse_scales(text)


def test_one_prompt_is_refused() -> None:
    with pytest.raises(AnalysisError, match="at least two"):
        replace(CONFIG, prompts=("a", "a"))


def blocks(losses: dict[str, float], certain: bool = True) -> Analysis:
    gain = -np.array(list(losses.values()))[:, None]
    band = 0.01 if certain else 100.0
    return Analysis(
        names=tuple(losses),
        scales=(0.0,),
        plain=Interval(0, 0, 0),
        gain=gain,
        low=gain - band,
        high=gain + band,
        prompts=4,
        images_per_prompt=1,
        images=1,
        seconds=0.0,
    )


LOSSES = {"double.0": 4.0, "double.1": 1.0, "single.0": 2.0, "single.1": 0.5, "single.2": -0.2}


def test_layers_to_skip_are_certain_losses_that_are_not_vital() -> None:
    losses = {**LOSSES, "single.3": 0.4}
    found = suggest_layers(blocks(losses), "flux", "block", tuple(losses))
    assert (found.double_layers, found.single_layers) == ("1", "0, 1")
    joint = {f"joint.{i}": loss for i, loss in enumerate(LOSSES.values())}
    found = suggest_layers(blocks(joint), "sd3", "block", tuple(joint))
    assert found.double_layers == "1, 2, 3"


@pytest.mark.parametrize(
    ("family", "granularity", "certain", "more", "says"),
    [
        ("pixart", "block", True, (), "cannot skip blocks of pixart"),
        ("flux", "layer", True, (), "whole blocks at scale 0"),
        ("flux", "block", False, (), "none to suggest"),
        # The worst of those analysed need not be the worst.
        ("flux", "block", True, ("single.3",), "suggested from all blocks"),
    ],
)
def test_where_there_is_nothing_to_suggest_it_says_why(
    family: str, granularity: str, certain: bool, more: tuple[str, ...], says: str
) -> None:
    found = suggest_layers(blocks(LOSSES, certain), family, granularity, (*LOSSES, *more))
    assert (found.double_layers, found.single_layers) == ("", "")
    assert says in found.reason
