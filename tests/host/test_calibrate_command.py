"""`comfyui-calibri calibrate` and `resume`: a run that page and command line take in turns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_client import PromptError
from comfyui_calibri.calibri import stop_request
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.settings import SETTINGS, ModelNames, RunSettings
from comfyui_calibri.calibri.settings_file import write_settings
from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.weights import TEXT_ENCODER, VAE

from .background_fixtures import StartServer
from .background_graph import BACKGROUND, TINY, Prompt, calibration
from .forked_server import ForkedServer

RUN = "both"
SECONDS = 240  # that anything here may take on a busy machine
SETTINGS_OF_RUN = RunSettings(
    name=RUN,
    model=ModelNames(
        diffusion_model=TINY,
        text_encoders=(Path(TEXT_ENCODER).name,),
        vae=Path(VAE).name,
    ),
    prompts=tuple(generate_prompts(16, 1, "train")),
    held_out=tuple(generate_prompts(4, 1, "test")),
    reward="demo",
    values={
        **{name: setting.default for name, setting in SETTINGS.items()},
        **{"sampler": "euler_ancestral", "steps": 1, "width": 64, "height": 64, "seed": 1},
        **{"generations": 2, "bucket_size": 2, "validate_every": 2, "stop_early": False},
        "keep_anyway": True,
    },
)


def page(run_name: str, settings: str = "", **changes: Any) -> Prompt:
    """The same calibration as a prompt of the page; with `settings`, as that file says."""
    small = {"steps": 1, "bucket_size": 2, "stop_early": False}
    graph = calibration(TINY, run_name, **small, **changes)
    node = graph[BACKGROUND]
    node["class_type"] = "CalibriCalibrate"
    for own in ("idle_seconds", "slice_seconds"):
        del node["inputs"][own]
    graph["15"] = {"class_type": "CalibriDemoReward", "inputs": {}}
    if settings:
        graph["30"] = {"class_type": "CalibriLoadSettings", "inputs": {"file": settings}}
        node["inputs"] |= {"settings": ["30", 0], "prompts": ["30", 1], "held_out": ["30", 2]}
    return graph


def command(server: ForkedServer, *arguments: object) -> subprocess.Popen[str]:
    """The command line in the server's folders, started."""
    where = [
        *("--comfyui", server.comfyui, "--base-directory", server.folder / "base"),
        *("--user-directory", server.folder / "user"),
        *("--output-directory", server.output),
    ]
    line = [sys.executable, "-m", "comfyui_calibri", *arguments, *where]
    return subprocess.Popen(
        list(map(str, line)),
        cwd=server.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(folder: Path) -> dict[tuple[str, int], Any]:
    """What the search measured, exactly."""
    with Journal.read(folder / "journal.sqlite") as journal:
        return {
            (e.role, e.generation): (e.vectors.tobytes(), e.bucket, e.rewards.tobytes())
            for e in journal.evaluations()
            if e.role in ("generation", "validation")
        }


def until_it_draws(folder: Path, generation: int, process: subprocess.Popen[str]) -> None:
    """Return when the first image of this generation has its reward."""
    deadline = time.monotonic() + SECONDS
    while True:
        with Journal.read(folder / "journal.sqlite") as journal:
            begun = journal.evaluation("generation", generation)
            if begun is not None and begun.done:
                return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_page_and_command_line_take_turns_at_one_run(start_server: StartServer) -> None:
    server, client = start_server()
    folder = server.folder / "user" / "calibri" / "runs" / RUN
    file = server.folder / "input" / "night.toml"
    write_settings(file, SETTINGS_OF_RUN)
    wrong = file.with_name("wrong.toml")
    wrong.write_text(file.read_text().replace("steps = 1", "steps = 0"))
    with pytest.raises(PromptError, match=r"steps is 0: give a whole number from 1 to 200\."):
        client.queue(page("another", "wrong.toml"))

    # The page begins, to a small budget.
    client.until_done(client.queue(page(RUN, generations=2)))
    begun = rows(folder)

    # The command line goes on with a larger one, and is terminated.
    more = command(server, "resume", RUN, "--generations", 500, "--cpu")
    until_it_draws(folder, 3, more)
    more.send_signal(signal.SIGTERM)
    _, said = more.communicate(timeout=SECONDS)
    assert more.returncode == 143, said
    assert "The same command goes on." in said
    last = max(generation for _, generation in rows(folder))

    # The page goes on with what the command line began, as a file says it.
    write_settings(
        file,
        replace(SETTINGS_OF_RUN, values={**SETTINGS_OF_RUN.values, "generations": last + 1}),
    )
    entry = client.until_done(client.queue(page("another", file.name)))
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [RUN]

    # Nobody can tell: one process finds the same.
    client.until_done(client.queue(page("whole", generations=last + 1)))
    both, whole = rows(folder), rows(folder.with_name("whole"))
    assert begun.items() <= both.items()
    assert max(generation for _, generation in both) == last + 1
    assert {key: both[key] for key in whole} == whole


@pytest.mark.oldest
def test_stop_is_heeded_by_a_run_in_the_background(start_server: StartServer) -> None:
    server, client = start_server()
    client.queue(calibration(TINY, "night", generations=500))
    client.until("night", lambda now: now["images"] > 0)
    folder = server.folder / "user" / "calibri" / "runs" / "night"
    assert (folder / "settings.toml").is_file()  # from its first slice on
    stop_request.ask(folder, stop_request.STOP)
    rests = client.until("night", lambda now: now["state"] == "paused")
    assert rests["reason"] == "It was stopped on the command line."
    client.act("night", "resume")
    client.until("night", lambda now: now["images"] > rests["images"])
