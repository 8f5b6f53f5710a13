"""A comparison's numbers, sentences, pictures and page say what was measured and no more."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfyui_calibri.calibri import figure_comparison
from comfyui_calibri.calibri.comparison import PLAIN, Comparison
from comfyui_calibri.calibri.comparison_course import compare
from comfyui_calibri.calibri.comparison_files import save_comparison
from comfyui_calibri.calibri.comparison_report import build_comparison, shown_cells
from comfyui_calibri.calibri.comparison_words import sentences, short
from comfyui_calibri.calibri.figure_comparison import draw_comparison

from .comparisons import ToyPainter, comparison, setting

STEPS = (2, 4, 8)
PLAIN_QUALITY = {2: 0.0, 4: 1.0, 8: 2.0}


def report_of(
    *presets: dict[int, float],
    compared: Comparison | None = None,
    plain: dict[int, float] = PLAIN_QUALITY,
    **toy: Any,
) -> dict[str, Any]:
    compared = compared or comparison(STEPS, variants=1 + len(presets), prompts=20)
    painter = ToyPainter((plain, *presets), **toy)
    return build_comparison(compared, compare(compared, painter), {"model": "toy"})


def cell(report: dict[str, Any], variant: int, number: int) -> dict[str, Any]:
    (found,) = (c for c in report["cells"] if (c["variant"], c["setting"]) == (variant, number))
    return found


def best(report: dict[str, Any], reward: str = "likeness") -> dict[str, Any]:
    (found,) = (entry for entry in report["equal_best"] if entry["reward"] == reward)
    return found


def test_means_gains_and_costs_are_those_of_the_pictures() -> None:
    report = report_of({2: 0.5, 4: 1.0, 8: 2.0})
    plain, preset = cell(report, 0, 0), cell(report, 1, 0)
    scores = np.array(preset["rewards"]["likeness"]["scores"])
    assert scores.shape == (20, 2)
    assert preset["rewards"]["likeness"]["mean"] == pytest.approx(scores.mean())
    gain = preset["rewards"]["likeness"]["gain"]
    # The toy's gain is the same for every prompt: pairing takes away all of the noise.
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((0.5, 0.5, 0.5))
    interval = preset["rewards"]["likeness"]
    assert interval["high"] - interval["low"] > 0.1
    assert plain["rewards"]["likeness"]["gain"] is None
    assert (plain["nfe"], plain["seconds"]) == (2, pytest.approx(0.2))


def test_a_preset_that_changes_nothing_gains_exactly_nothing() -> None:
    report = report_of(PLAIN_QUALITY)
    for number in range(len(STEPS)):
        for reward in report["rewards"]:
            gain = cell(report, 1, number)["rewards"][reward]["gain"]
            assert (gain["mean"], gain["low"], gain["high"]) == (0, 0, 0)
        ratio = cell(report, 1, number)["diversity"]["ratio"]
        assert (ratio["mean"], ratio["low"], ratio["high"]) == (1, 1, 1)


def test_the_fewest_steps_that_reach_the_plain_models_best() -> None:
    entry = best(report_of({2: 1.9, 4: 2.1, 8: 3.0}))
    assert (entry["best"], entry["reached"]) == (2, 1)  # places in the list of settings
    assert entry["difference"]["mean"] == pytest.approx(0.1)
    assert entry["excludes_worse"]


def test_plains_best_need_not_be_at_the_most_steps() -> None:
    entry = best(report_of({2: 0.0, 4: 1.6, 8: 1.0}, plain={2: 0.0, 4: 1.5, 8: 1.2}))
    assert (entry["best"], entry["reached"]) == (1, 1)


def test_equal_on_the_mean_is_not_surely_as_good() -> None:
    """The preset's mean is higher by less than the prompts scatter."""

    class Scatters(ToyPainter):
        def draw(self, variant, setting, bucket):  # type: ignore[no-untyped-def]
            drawn = super().draw(variant, setting, bucket)
            own = [variant * (-1.0) ** sample.prompt for sample in bucket]
            likeness = drawn.scores["likeness"] + np.array(own)
            return replace(drawn, scores={**drawn.scores, "likeness": likeness})

    compared = comparison((2, 4), prompts=12)
    painter = Scatters(({2: 0.0, 4: 1.0}, {2: 1.1, 4: 1.1}))
    entry = best(build_comparison(compared, compare(compared, painter), {}))
    assert entry["reached"] == 0
    assert entry["difference"]["low"] < 0 < entry["difference"]["mean"]
    assert not entry["excludes_worse"]


def test_never_reached_is_said_so() -> None:
    report = report_of({2: 0.0, 4: 0.5, 8: 1.0})
    assert best(report)["reached"] is None
    assert any("does not reach the plain model's best likeness" in s for s in sentences(report))


def test_steps_saved_are_told_with_evaluations_and_a_caution() -> None:
    found = sentences(report_of({2: 1.9, 4: 2.1, 8: 3.0}))
    (saved,) = (text for text in found if "reaches" in text)
    assert "with 4 steps, 4 instead of 8 evaluations of the model" in saved
    assert "excludes that it is worse" in saved
    assert "highest of up to 3 measured means" in found[-1]


def test_the_caution_is_said_where_there_is_no_room_for_all() -> None:
    report = report_of({2: 1.9, 4: 2.1, 8: 3.0})
    report["variants"] = ["plain", "a" * 60]  # as long as names may be
    said = sentences(report)
    assert len(said) > 2
    few = short(report, 2).splitlines()
    assert few == [said[0], f"{len(said) - 2} more in the report.", said[-1]]
    assert short(report, len(said)).splitlines() == said
    for entry in range(40):
        report["groups"].append(report["groups"][0][:1])  # a sentence more each
        assert len(figure_comparison._words(report)) <= figure_comparison.MOST_WORDS + 2, entry
    words = " ".join(figure_comparison._words(report))
    assert "highest of up to 3 measured means" in words
    assert "more in evaluation.html" in words


def test_long_names_keep_both_ends_in_the_legend() -> None:
    names = ("flux1-dev-fp8-e4m3fn-scaled-v2: ImageReward", "flux1-dev-fp8-e4m3fn-scaled-v2: HPSv3")
    short_names = [figure_comparison._short(name) for name in (*names, "x" * 60, "a  name")]
    assert short_names[0] == "flux1-dev-fp8-e4m3…d-v2: ImageReward"
    assert short_names[1].endswith(": HPSv3")
    assert max(map(len, short_names)) == 36
    assert short_names[3] == "a name"


def test_a_reward_that_falls_while_the_first_rises_is_told() -> None:
    class Darkens(ToyPainter):
        def draw(self, variant, setting, bucket):  # type: ignore[no-untyped-def]
            drawn = super().draw(variant, setting, bucket)
            dark = drawn.scores["brightness"] - 0.1 * variant
            return replace(drawn, scores={**drawn.scores, "brightness": dark})

    compared = comparison(STEPS, prompts=20)
    painter = Darkens((PLAIN_QUALITY, {2: 1.0, 4: 1.5, 8: 1.9}))
    report = build_comparison(compared, compare(compared, painter), {})
    (said,) = (text for text in sentences(report) if "may exploit" in text)
    assert "raises likeness and lowers brightness at 2 of 3 settings" in said
    assert "-0.1 [-0.1, -0.1]" in said
    assert not any("may exploit" in text for text in sentences(report_of(PLAIN_QUALITY)))


@pytest.mark.parametrize(("spread", "word"), [(0.2, "collapse"), (0.8, "more alike")])
def test_lost_diversity_is_told_and_collapse_by_its_name(spread: float, word: str) -> None:
    report = report_of({2: 1.0, 4: 2.0, 8: 3.0}, spread=(1.0, spread))
    ratio = cell(report, 1, 0)["diversity"]["ratio"]
    assert ratio["mean"] == pytest.approx(spread, abs=0.02)
    assert ratio["low"] <= ratio["mean"] <= ratio["high"] < 1
    assert any(word in text for text in sentences(report))


def test_where_plain_pictures_are_all_alike_there_is_no_ratio() -> None:
    report = report_of({2: 1.0, 4: 2.0, 8: 3.0}, spread=(0.0, 1.0))
    assert cell(report, 1, 0)["diversity"]["ratio"] is None
    assert draw_comparison(report).shape[1] == 1400


def test_one_image_a_prompt_leaves_diversity_out() -> None:
    report = report_of(PLAIN_QUALITY, compared=comparison(STEPS, prompts=5, images=1))
    assert cell(report, 1, 0)["diversity"] is None
    assert not any("diversity" in text for text in sentences(report))
    assert draw_comparison(report).shape[1] == 1400


def test_the_grid_is_chosen_before_anything_is_drawn() -> None:
    settings = [setting(steps) for steps in (30, 4, 2)]
    assert shown_cells(settings, 3) == ((0, 2), (1, 2), (2, 2), (0, 0))
    assert shown_cells(settings, 2, found_at=5) == ((0, 1), (1, 1), (0, 0))
    assert shown_cells(settings[:1], 2) == ((0, 0), (1, 0))
    of_two_cfgs = [setting(4, 3.0), setting(8, 3.0), setting(4, 5.0), setting(30, 5.0)]
    assert shown_cells(of_two_cfgs, 1) == ((0, 0), (0, 1))


@pytest.mark.parametrize(
    "settings",
    [
        (setting(4),),
        (setting(4, 1.0), setting(4, 2.0), setting(4, 5.0)),
        tuple(setting(steps, cfg) for cfg in (1.0, 2.0, 3.0, 4.0) for steps in (2, 4)),
    ],
    ids=["one", "over cfg", "many groups"],
)
def test_every_kind_of_comparison_can_be_drawn_and_said(settings: Any) -> None:
    compared = replace(comparison(), settings=settings)
    report = report_of(PLAIN_QUALITY, compared=compared)
    assert draw_comparison(report).std() > 1
    assert all(text.endswith(".") for text in sentences(report))


def test_the_folder_holds_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    evil = "<script>alert('$x$')</script> & \u202e \"quoted\""
    compared = replace(
        comparison(),
        variants=(PLAIN, evil),
        prompts=tuple(f"{evil} {number}" for number in range(6)),
    )
    painter = ToyPainter(({2: 0.0, 4: 1.0}, {2: 0.0, 4: 2.0}))
    cells = compare(compared, painter)
    report = build_comparison(compared, cells, {"model": evil, "presets": [{"title": evil}]})
    files = save_comparison(tmp_path / "run", report, cells)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"evaluation.json", "evaluation.html", "evaluation.png", "grid.png"}
    assert json.loads(files.numbers.read_text()) == json.loads(json.dumps(report))
    for path, picture in ((files.figure, files.figure_picture), (files.grid, files.grid_picture)):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    page = files.page.read_text()
    found = Tags()
    found.feed(page)
    assert "script" not in found.names
    assert found.names.count("img") == 2
    assert all(value.startswith("data:image/png;base64,") for value in found.sources)
    assert "Content-Security-Policy" in page
    assert not re.search(r"https?://", page)
    assert "likeness" in page


def test_a_full_disk_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = comparison()
    cells = compare(compared, ToyPainter(({2: 0.0, 4: 1.0}, {2: 0.0, 4: 2.0})))
    report = build_comparison(compared, cells, {})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="free some space"):
        save_comparison(tmp_path, report, cells)
    assert not list(tmp_path.iterdir())


class Tags(HTMLParser):
    """The elements of a page, and what its elements load."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
