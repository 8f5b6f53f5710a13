"""Runs and their folders: whose they are, and what another ComfyUI on the same folder may do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import numpy as np
import pytest

from comfyui_calibri.calibri.configuration import RunConfig
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.outcome import Best
from comfyui_calibri.calibri.preset_metadata import Member, Preset
from comfyui_calibri.calibri.presets import save_preset
from comfyui_calibri.calibri.selection import Interval
from comfyui_calibri.nodes import runs
from comfyui_calibri.nodes.background import commands, registry, slice_work
from comfyui_calibri.nodes.background.attach import Wish, attach
from comfyui_calibri.nodes.background.pace import Pace
from comfyui_calibri.nodes.background.record import FINISHED, INTERRUPTED, RUNNING, Progress, Record
from comfyui_calibri.nodes.background.registry import BusyError, Registry
from comfyui_calibri.nodes.background.results import publish
from comfyui_calibri.nodes.background.run import Run
from comfyui_calibri.nodes.best_so_far import keep_recommended

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("user", "output"):
        monkeypatch.setattr(
            folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name)
        )


def begun(name: str) -> Path:
    """The folder of a run that goes on."""
    folder = runs.new_run(name, {"seed": 1})
    Record(folder.name, folder.name, RUNNING).save(folder)
    return folder


def test_a_run_that_another_comfyui_works_on_is_neither_changed_nor_deleted() -> None:
    folder = begun("night")
    written = (folder / "run.json").read_bytes()
    second = Registry()
    with Journal.open(folder / runs.JOURNAL):
        second.load()
        (run,) = second.all()
        assert "Another ComfyUI" in run.summary()["reason"]
        for act in (lambda: second.delete(run), lambda: commands.resume(second, run)):
            with pytest.raises(BusyError, match="worked on by another ComfyUI"):
                act()
        assert (folder / "run.json").read_bytes() == written
    (run,) = second.all()
    second.claim(run)
    assert (run.record.state, run.record.reason) == (INTERRUPTED, registry.ENDED)
    commands.resume(second, run)
    assert run.goes_on
    second.delete(run)
    assert not folder.exists()


def test_a_run_that_cannot_go_to_the_trash_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun("night")
    known = Registry()
    known.load()
    (run,) = known.all()

    def fail(*_: object) -> None:
        raise PermissionError("in use")

    monkeypatch.setattr(registry.shutil, "move", fail)
    known.delete(run)
    assert known.all() == [run]
    assert run.record.state == "paused"
    assert "in use" in run.record.reason
    assert folder.exists()


def test_a_number_at_the_end_of_a_name_is_not_the_number_of_another_name() -> None:
    first = runs.new_run("night", {"seed": 1})
    named_so = runs.new_run("night-2", {"seed": 2})
    third = runs.new_run("night", {"seed": 3})
    assert [folder.name for folder in (first, named_so, third)] == ["night", "night-2", "night-3"]
    assert runs.runs_named("night") == [first, third]
    assert runs.runs_named("night-2") == [named_so]
    assert runs.same_run("night", {"seed": 3}) == third
    assert runs.settings_of(third) == {"seed": 3}


def test_many_batches_given_up_in_a_row_are_said() -> None:
    run = Run(Record("night", "night", yields=2))
    assert run.summary()["reason"] == ""
    run.record.yields = 3
    assert "pauses are shorter than its batches" in run.summary()["reason"]


def test_a_preset_drawn_again_after_a_kill_is_published_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published = tmp_path / "models"
    monkeypatch.setattr(
        "comfyui_calibri.nodes.folders.new_preset_path", lambda name: published / name
    )
    run = Run(Record(begun("night").name, "night"))
    member = Member({"single_blocks.0.linear2": 1.5})
    preset = Preset("flux", {"single": 1}, "block", (member,), created="2026-11-21")
    for again in (preset, replace(preset, created="2026-11-22")):
        save_preset(run.preset_file, again, overwrite=True)
        publish(run)
    other = replace(member, coefficients={"single_blocks.0.linear2": 1.25})
    save_preset(run.preset_file, replace(preset, members=(other,)), overwrite=True)
    publish(run)
    assert sorted(file.name for file in published.iterdir()) == [
        "night-2.safetensors",
        "night.safetensors",
    ]


@pytest.mark.parametrize(("stop_early", "state"), [(True, FINISHED), (False, RUNNING)])
def test_a_run_that_ended_early_goes_on_once_it_may_not(stop_early: bool, state: str) -> None:
    record = Record("night", "night", FINISHED, ended_with=3, ended_early=True)
    record.save(runs.new_run("night", {"seed": 1}))
    known = Registry()
    known.load()
    config = RunConfig(("a",), ("b", "c"), "r", 3, stop_early=stop_early)
    prepared: Any = SimpleNamespace(config=config, settings={"seed": 1}, evaluator=None)
    wish = Wish("night", "refuse", 5.0, 60.0, None, [], "1")
    run, _ = attach(known, wish, lambda start: prepared, Pace())
    assert run.record.state == state


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, FINISHED),
        ({"judges": {}}, RUNNING),
        ({"judges": {"diversity": "", "ImageReward": "1a"}}, RUNNING),
        ({"keep_anyway": True}, RUNNING),
        ({"stop_early": True}, FINISHED),
    ],
)
def test_a_finished_run_goes_on_where_its_end_is_asked_for_otherwise(
    change: dict[str, Any], state: str
) -> None:
    folder = runs.new_run("night", {"seed": 1})
    record = Record("night", "night", FINISHED, ended_with=3, ending=["diversity"], concluding=True)
    record.save(folder)
    known = Registry()
    known.load()
    config = RunConfig(("a",), ("b", "c"), "r", 3, **{"judges": {"diversity": ""}, **change})
    prepared: Any = SimpleNamespace(config=config, settings={"seed": 1}, evaluator=None)
    wish = Wish("night", "refuse", 5.0, 60.0, None, [], "1")
    run, _ = attach(known, wish, lambda start: prepared, Pace())
    # Its search was ended early, and stays so.
    assert (run.record.state, run.record.concluding) == (state, True)


def test_a_run_that_recommends_the_plain_model_has_no_preset() -> None:
    run = Run(Record("night", "night", FINISHED, preset="night.safetensors"))
    run.folder.mkdir(parents=True)
    run.preset_file.write_bytes(b"the best so far")
    keep_recommended(run.id)
    publish(run)
    assert not run.preset_file.exists()
    assert run.record.preset is None


@pytest.mark.parametrize(
    ("phase", "saved"), [("generation", True), ("selection", True), ("judging", False)]
)
def test_what_was_promised_gives_way_to_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch, phase: str, saved: bool
) -> None:
    """A judge that comes later reopens a run whose best validated mean was not its choice."""
    bests: list[Best] = []
    monkeypatch.setattr(slice_work, "save_best", lambda run, prepared, best: bests.append(best))
    begun("night")
    run = Run(Record("night", "night", RUNNING, progress=Progress(best_generation=2)))
    prepared: Any = SimpleNamespace(config=SimpleNamespace(generations=4))
    run.prepared = prepared
    best = Best(4, np.ones(1), 0.5, 0.4, Interval(0.1, 0.0, 0.2))
    session: Any = SimpleNamespace(
        best=lambda: best, generation=4, images=9, total=9, phase=phase, pilot=None
    )
    slice_work._Slice(run, Pace(), lambda: False)._note(session)
    assert bests == ([best] if saved else [])
    assert run.record.progress.best_generation == (4 if saved else 2)


def test_what_is_left_is_told_by_the_pace_of_the_runs_own_images() -> None:
    """A run that goes on with one of Calibrate's has images that its slices did not draw."""
    record = Record("night", "night", RUNNING)
    record.progress = Progress(images=130, total=160, seconds=60.0, drawn=20)
    assert Run(record).summary()["seconds_left"] == 90.0
    record.progress = Progress(images=110, total=160, seconds=2.0)
    assert Run(record).summary()["seconds_left"] is None
