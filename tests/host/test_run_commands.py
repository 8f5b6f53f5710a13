"""`status`, `stop`, `report` and `doctor`: what they say of runs that nodes have made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from typer.testing import CliRunner, Result

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.journal_file import JournalBusyError
from comfyui_calibri.cli import app
from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.weights import TEXT_ENCODER, VAE, WEIGHTS
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.headless_run import open_run

from .background_graph import TINY, write_tiny_model
from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import calibration_inputs
from .tiny_patchers import Brightness

pytestmark = pytest.mark.usefixtures("output")

RUN = "trial"


class Asks(Brightness):
    """Somebody looks at the run, and asks it to stop, while the reward's call number `at` runs."""

    def __init__(self, comfyui: Path, at: int) -> None:
        self.comfyui, self.left = comfyui, at
        self.said: list[Result] = []

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            said = (("status", RUN, "--json"), ("report", RUN), ("stop", RUN, "--json"))
            self.said = [command(self.comfyui, *arguments) for arguments in said]
        return super().score(images, prompts)


def command(comfyui: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--comfyui", str(comfyui)])


@pytest.mark.oldest
def test_a_run_is_listed_stopped_and_reported(
    comfyui: Path, output: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert f"There are no runs in {output}" in command(comfyui, "status").stdout
    absent = command(comfyui, "report", "nothing")
    assert (absent.exit_code, "There is no run 'nothing'" in absent.stderr) == (2, True)

    inputs = calibration_inputs(tmp_path_factory.mktemp("clip"))
    reward = Asks(comfyui, at=6)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        CalibriCalibrate.execute(**{**inputs, "reward": reward})
    status, report, stop = reward.said
    state = json.loads(status.stdout)
    assert (state["id"], state["state"], state["generation"]) == (RUN, "running", 1)
    assert "Run trial, running: 1 generations" in report.stdout
    assert stop.exit_code == 0
    assert json.loads(stop.stdout) == {"id": RUN, "asked": "stop", "stopped": False}
    assert json.loads(command(comfyui, "status", RUN, "--json").stdout)["state"] == "rests"
    again = command(comfyui, "stop", RUN)
    assert (again.exit_code, "Nobody works on the run" in again.stderr) == (2, True)

    # It goes on to its end.
    CalibriCalibrate.execute(**{**inputs, "reward": reward})
    ended = json.loads(command(comfyui, "report", RUN, "--json").stdout)
    assert (ended["id"], ended["state"]) == (RUN, "finished")
    assert Path(ended["files"]["report"]).is_file()
    told = command(comfyui, "report", RUN, "--to", output / "copy").stdout
    assert f"Run {RUN}, finished: " in told
    assert sorted(file.name for file in (output / "copy").iterdir()) == [
        "course.png",
        "report.json",
    ]
    assert f"{RUN}  finished" in command(comfyui, "status").stdout
    folder = output / "calibri" / "runs" / RUN
    settings = (folder / "settings.toml").read_text()
    assert "The workflow's model" in settings  # it came from no loader
    with Journal.open(folder / "journal.sqlite"), pytest.raises(JournalBusyError):
        CalibriCalibrate.execute(**{**inputs, "reward": reward, "generations": 9})
    assert (folder / "settings.toml").read_text() == settings  # who is refused changes nothing
    refused = command(comfyui, "resume", RUN)
    assert (refused.exit_code, "There is no model: give --checkpoint" in refused.stderr) == (
        2,
        True,
    )


def test_the_run_that_is_named_goes_on_and_not_its_copy() -> None:
    record = {"seed": 1}
    first = open_run("night", record)
    copy = Path(shutil.copytree(first, first.with_name("night-backup")))
    assert open_run("night", record) == first
    assert open_run("night", record, "night-backup") == copy
    first.rename(first.with_name("old"))
    assert open_run("night", record, "old").name == "old"
    assert not first.exists()


def test_a_run_that_another_process_has_is_not_begun_twice(comfyui: Path, output: Path) -> None:
    folder = output / "calibri" / "runs" / RUN
    with Journal.open(folder / "journal.sqlite"):
        (folder / "config.json").write_text("{}")
        rows: list[dict[str, Any]] = json.loads(command(comfyui, "status", "--json").stdout)
    assert [(row["id"], row["state"]) for row in rows] == [(RUN, "running")]


def test_the_command_line_plans_calibrates_and_answers_in_json(
    comfyui: Path, output: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models = tmp_path_factory.mktemp("models")
    write_tiny_model(models)
    prompts = models / "prompts.txt"
    prompts.write_text("\n".join(generate_prompts(6, 1, "train")))
    arguments: list[object] = [
        *("calibrate", "--diffusion-model", models / "diffusion_models" / TINY, "--cpu"),
        *("--text-encoder", WEIGHTS / TEXT_ENCODER, "--vae", WEIGHTS / VAE),
        *("--prompts", prompts, "--reward", "demo", "--run-name", "planned"),
        *("--steps", 1, "--width", 64, "--height", 64, "--granularity", "block"),
        *("--generations", 1, "--bucket-size", 1, "--validate-every", 1, "--json"),
    ]
    plan = command(comfyui, *arguments, "--plan", "--price", 3.6)
    assert plan.exit_code == 0, plan.stderr
    forecast = json.loads(plan.stdout)
    assert (forecast["drawn"], forecast["calls"], forecast["workers"]) == (0, 1, 1)
    assert forecast["seconds"] == forecast["images"] * forecast["seconds_per_image"] > 0
    assert forecast["cost"] == pytest.approx(forecast["seconds"] * 0.001)
    assert not (output / "calibri").exists()  # nothing is left of a plan

    done = command(comfyui, *arguments)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["id"], report["state"]) == ("planned", "finished")
    assert report["counts"]["images"] <= forecast["images"]
    assert (output / "calibri" / "planned" / "settings.toml").is_file()

    more = command(comfyui, "resume", "planned", "--generations", 2, "--cpu", "--plan", "--json")
    assert more.exit_code == 0, more.stderr
    forecast = json.loads(more.stdout)
    assert forecast["drawn"] == report["counts"]["images"] < forecast["images"]

    # Nothing is drawn again; another process is told apart from bad input.
    again = command(comfyui, "resume", "planned", "--cpu", "--json")
    assert json.loads(again.stdout)["counts"] == report["counts"]
    kept = output / "calibri" / "runs" / "planned" / "settings.toml"
    settings = kept.read_bytes()
    with Journal.open(kept.with_name("journal.sqlite")):
        for line in (("resume", "planned", "--cpu"), arguments):
            busy = command(comfyui, *line, "--generations", 9)
            assert (busy.exit_code, "another run may be using it" in busy.stderr) == (3, True)
    assert kept.read_bytes() == settings  # who is refused changes nothing
    wrong = command(comfyui, *arguments, "--profile", "best")
    assert (wrong.exit_code, "give one of default, paper." in wrong.stderr) == (2, True)


@pytest.mark.oldest
def test_doctor_finds_this_comfyui_and_names_what_is_missing(comfyui: Path) -> None:
    found = command(comfyui, "doctor", "--json")
    by_name = {finding["about"]: finding for finding in json.loads(found.stdout)}
    assert by_name["ComfyUI"]["state"] == "ok"
    assert str(comfyui) in by_name["ComfyUI"]["text"]
    assert by_name["presets"]["state"] == "ok"
    assert by_name["PickScore"]["state"] == "note"
    assert "download it from" in by_name["PickScore"]["text"]
    assert found.exit_code == 0, found.stdout
