"""The report: its numbers are the run's, its picture is drawn, and its files are whole."""

import errno
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.coefficients import GRANULARITIES, coefficient_space
from comfyui_calibri.calibri.figure import draw_report
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.report import build_report, save_picture, save_report
from comfyui_calibri.calibri.selection import Interval
from comfyui_calibri.calibri.stopping import Prospect

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's outcome and report."""
    path = tmp_path_factory.mktemp("run") / "run.sqlite"
    config = replace(CONFIG, generations=5)
    with pytest.raises(Interrupted):
        run(path, ExactEvaluator(stop_at=9), config)
    outcome = run(path, config=config)
    with Journal.read(path) as journal:
        yield outcome, build_report(outcome, SPACE, journal)


def test_the_numbers_are_the_runs(finished):
    outcome, report = finished
    assert report["run"]["prompts"] == 7
    assert report["run"]["validation_prompts"] == 3
    assert report["run"]["granularity"] == "gate"
    assert report["run"]["sampling"] == {"steps": 4}
    assert report["run"]["generations"] == 5
    assert [row["generation"] for row in report["generations"]] == [1, 2, 3, 4, 5]
    assert [row["mean"] for row in report["generations"]] == [s.mean for s in outcome.history]
    assert [row["generation"] for row in report["validations"]] == [0, 2, 4, 5]
    assert report["validations"][0]["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert report["gain"]["low"] <= report["gain"]["mean"] <= report["gain"]["high"]
    assert report["after"]["mean"] == outcome.after.mean
    (member,) = report["recommended"]["members"]
    assert list(member["coefficients"]) == list(SPACE.names)
    assert member["weight"] == 1.0
    assert sum(row["recommended"] for row in report["finalists"]) == 1
    finalists = len(outcome.finalists)
    assert report["counts"]["evaluations"] == 5 * 16 + 4 + finalists + 2
    assert report["counts"]["images"] == 5 * 16 * 3 + (4 + finalists + 2) * 3
    assert report["counts"]["seconds"] > 0
    assert {"python", "numpy", "cma"} <= report["versions"].keys()
    assert report["pilot"]["images"] == outcome.pilot.images
    assert report["pilot"]["sentence"] == outcome.pilot.sentence
    assert report["stopped"] is None


def test_an_early_end_is_told(finished, tmp_path):
    outcome, _ = finished
    stopped = Prospect(5, 30, gained=Interval(0.5, 0.3, 0.7), further=0.01, rate=0.05)
    with Journal.open(tmp_path / "run.sqlite") as journal:
        report = build_report(replace(outcome, stopped=stopped), SPACE, journal)
    assert report["stopped"] == {**asdict(stopped), "sentence": stopped.sentence}


def test_json_comes_back(finished, tmp_path):
    _, report = finished
    path = tmp_path / "new" / "report.json"
    save_report(path, report)
    save_report(path, report)
    assert json.loads(path.read_text(encoding="utf-8")) == report
    assert os.listdir(path.parent) == ["report.json"]


def test_the_picture_with_and_without_a_grid(finished, tmp_path):
    _, report = finished
    alone = draw_report(report)
    assert alone.shape[1:] == (1400, 3)
    assert alone.dtype == np.uint8
    before = np.full((9, 16, 16, 3), (250, 20, 20), np.uint8)
    after = np.full((9, 16, 16, 3), (20, 20, 250), np.uint8)
    picture = draw_report(report, before, after, ["a $5 bill, $6 ^_ too"] * 9)
    assert picture.shape[0] > alone.shape[0]

    def pixels(colour):
        return int((picture == colour).all(axis=-1).sum())

    assert pixels((250, 20, 20)) > 8 * 100**2
    assert pixels((250, 20, 20)) == pytest.approx(pixels((20, 20, 250)), rel=0.05)
    save_picture(tmp_path / "report.png", picture)
    with Image.open(tmp_path / "report.png") as saved:
        assert (np.asarray(saved) == picture).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_and_second_attention_is_drawn(finished, granularity):
    _, report = finished
    branches = [("attention", "image"), ("attention2", "image"), ("mlp", "text")]
    taps = tuple(Tap("joint", i, b, s, "", 0, 1) for i in range(60) for b, s in branches)
    space = coefficient_space(Backbone("sd3", {"joint": 60}, taps), granularity)

    def draw(vector):
        members = [{"weight": 1.0, "coefficients": space.named(vector)}]
        return draw_report({**report, "recommended": {"generation": 0, "members": members}})

    vector = np.linspace(-1, 2, len(space.names))
    changed = vector.copy()
    changed[len(vector) // 2] = 2.0
    columns = np.flatnonzero((draw(vector) != draw(changed)).any(axis=(0, 2)))
    # One bar has changed: no wider than its block's share of the picture, and visible.
    assert 2 <= np.ptp(columns) + 1 <= 1400 / 60


def test_drawing_leaves_matplotlibs_settings_alone(finished):
    import matplotlib

    _, report = finished
    before = dict(matplotlib.rcParams)
    draw_report(report)
    assert dict(matplotlib.rcParams) == before


def test_a_full_disk_leaves_the_old_report(finished, tmp_path, monkeypatch):
    _, report = finished
    path = tmp_path / "report.json"
    save_report(path, report)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="free some disk space") as raised:
        save_report(path, {})
    assert raised.value.errno == errno.ENOSPC
    assert json.loads(path.read_text(encoding="utf-8")) == report
    assert os.listdir(tmp_path) == ["report.json"]
