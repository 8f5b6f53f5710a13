"""Runs that are not the background's: Calibrate's in a prompt, from HTTP, and those that another
process works on. They are listed and watched as the others, and can be asked to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch

from comfyui_calibri.calibri import stop_request
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.nodes import runs
from comfyui_calibri.nodes.album import picture_of
from comfyui_calibri.nodes.background import commands
from comfyui_calibri.nodes.background.observed import Observed
from comfyui_calibri.nodes.background.others import Others
from comfyui_calibri.nodes.background.record import RUNNING, Record
from comfyui_calibri.nodes.background.registry import BusyError, Registry
from comfyui_calibri.nodes.calibrate import CalibriCalibrate

from .background_client import Refused
from .background_fixtures import StartServer
from .background_graph import BACKGROUND, TINY, Prompt, calibration
from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import calibration_inputs
from .tiny_patchers import Brightness

pytestmark = pytest.mark.oldest

LONG = {"steps": 1, "width": 32, "height": 32, "bucket_size": 2, "validate_every": 1}


def in_prompt(run_name: str, **settings: Any) -> Prompt:
    """A calibration by Calibrate itself."""
    prompt = calibration(TINY, run_name, **{**LONG, **settings})
    inputs = prompt[BACKGROUND]["inputs"]
    for name in ("idle_seconds", "slice_seconds"):
        del inputs[name]
    return {**prompt, BACKGROUND: {"class_type": "CalibriCalibrate", "inputs": inputs}}


def test_a_run_in_a_prompt_is_watched_stopped_saved_and_finished(start_server: StartServer) -> None:
    server, client = start_server()
    prompt = client.queue(in_prompt("front", generations=10_000))
    going = client.until("front", lambda now: now["generation"] >= 2 and now["best"])
    assert (going["where"], going["state"], going["reason"]) == ("prompt", "running", "")
    assert going["total"] > going["images"] > 0
    assert going["gain"]["low"] <= going["gain"]["mean"] <= going["gain"]["high"]
    whole = client.summary("front")
    assert [row["generation"] for row in whole["course"][:3]] == [0, 1, 2]
    assert whole["course"][1]["sigma"] is not None
    assert len(whole["course"][0]["vector"]) == len(whole["coordinates"])
    assert client.picture("front").startswith(b"\xff\xd8\xff")
    with pytest.raises(Refused, match="not this ComfyUI's in the background") as refused:
        client.act("front", "pause")
    assert refused.value.status == 409
    with pytest.raises(Refused, match="stop it first"):
        client.call("DELETE", "/front")
    saved = client.act("front", "save")["preset"]
    assert (server.models / "calibri" / saved).is_file()

    client.act("front", "stop")
    ended = client.until_done(prompt)
    assert ended["status"]["messages"][-1][0] == "execution_interrupted"
    rests = client.until("front", lambda now: now["state"] == "rests")
    assert (rests["where"], "comfyui-calibri resume front" in rests["reason"]) == ("nowhere", True)
    with pytest.raises(Refused, match="Nobody works on"):
        client.act("front", "stop")

    # It goes on, and ends when it is told.
    prompt = client.queue(in_prompt("front", generations=10_000))
    client.until("front", lambda now: now["generation"] > rests["generation"])
    assert "asked to finish" in client.act("front", "finish")["reason"]
    assert client.until_done(prompt)["status"]["status_str"] == "success"
    over = client.until("front", lambda now: now["state"] == "finished")
    assert (over["where"], over["images"]) == ("nowhere", over["total"])
    assert over["gain"] is not None
    client.call("DELETE", "/front")
    assert client.summaries() == []
    (trash,) = (server.folder / "user" / "calibri" / "runs" / ".trash").iterdir()
    assert (trash / "journal.sqlite").is_file()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Others:
    """Of folders of their own."""
    for name in ("user", "output"):
        monkeypatch.setattr(
            folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name)
        )
    return Others(Registry(), lambda *told: None)


def test_a_run_of_another_process_can_only_be_asked_to_end(others: Others) -> None:
    folder = runs.new_run("night", {"seed": 1})
    with Journal.open(folder / runs.JOURNAL):
        (run,) = others.all()
        told = run.summary()
        assert (told["where"], told["state"]) == ("elsewhere", "running")
        for wish, word in ((stop_request.STOP, "stop"), (stop_request.FINISH, "finish")):
            commands.act(Registry(), run, wish)
            assert stop_request.asked(folder) == wish
            assert f"asked to {word}" in run.summary()["reason"]
        with pytest.raises(BusyError):
            others.delete(run)
    stop_request.withdraw(folder)
    told = run.summary()
    assert (told["where"], told["state"]) == ("nowhere", "rests")
    assert not (folder / stop_request.FILE).exists()
    others.delete(run)
    assert (others.all(), folder.exists()) == ([], False)


def test_a_background_run_is_shown_as_it_is_where_another_comfyui_works_on_it(
    others: Others,
) -> None:
    folder = runs.new_run("night", {"seed": 1})
    Record("night", "night", RUNNING).save(folder)
    second = Registry()
    there = Others(second, lambda *told: None)
    with Journal.open(folder / runs.JOURNAL):
        second.load()
        (run,) = there.all()
        assert run.summary()["where"] == "elsewhere"
    assert there.all() == []  # it is the second's to resume now


def test_a_run_that_is_deleted_in_its_slice_is_nobody_elses_until_that_ends(
    others: Others,
) -> None:
    folder = runs.new_run("night", {"seed": 1})
    registry = Registry()
    here = Others(registry, lambda *told: None)
    run = registry.add(Record("night", "night", RUNNING))
    run.in_slice = True
    registry.delete(run)
    assert folder.exists()
    assert (here.all(), here.find("night")) == ([], None)


@pytest.mark.parametrize("name", ["..", ".trash", "a/b", "none", ""])
def test_what_is_no_run_is_not_found(others: Others, name: str) -> None:
    (runs.runs_folder() / ".trash").mkdir(parents=True)
    assert others.find(name) is None


def test_a_journal_that_is_none_is_said(others: Others) -> None:
    folder = runs.new_run("night", {"seed": 1})
    (folder / runs.JOURNAL).write_bytes(b"no journal at all, but a text that is long enough")
    (run,) = others.all()
    told = run.summary()
    assert told["state"] == "rests"
    assert "is a calibration journal" in told["reason"]
    assert (run.course(), run.coordinates()) == ([], [])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a small Calibrate in this process: 2 generations, each validated."""
    with torch.inference_mode():
        given = calibration_inputs(Path(tmp_path_factory.mktemp("clip")))
    return {**given, "validate_every": 1, "keep_anyway": True}


class Cancels(Brightness):
    """Presses Cancel, as the page would, once the run has a best."""

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        if (runs.runs_folder() / "trial" / runs.PRESET).is_file():
            comfy.model_management.interrupt_current_processing()
        return super().score(images, prompts)


@pytest.mark.usefixtures("inference")
def test_what_is_told_of_a_run_is_what_it_has_found(inputs: dict[str, Any], output: Path) -> None:
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        CalibriCalibrate.execute(**{**inputs, "reward": Cancels()})
    run = Observed("trial")
    told = run.summary()
    assert (told["state"], told["best"]) == ("rests", told["generation"])
    best = load_preset(run.folder / runs.PRESET)
    (kept,) = best.rewards
    assert told["plain"] == pytest.approx(kept.before)
    assert told["reward"] == pytest.approx(kept.after)
    assert (told["gain"]["low"], told["gain"]["high"]) == pytest.approx((kept.low, kept.high))
    assert picture_of(run.folder)

    CalibriCalibrate.execute(**inputs)
    told, course = run.summary(), run.course()
    report = json.loads((output / "calibri" / "trial" / "report.json").read_text())
    assert (told["state"], told["best"]) == ("finished", report["recommended"]["generation"])
    assert told["gain"] == report["gain"]
    assert told["images"] == report["counts"]["images"]
    assert [row["generation"] for row in course] == [0, 1, 2]
    assert [row["mean"] for row in course[1:]] == pytest.approx(
        [row["mean"] for row in report["generations"]]
    )
