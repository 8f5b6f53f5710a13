"""Calibrate (background) in a real ComfyUI: it returns at once, goes on by itself, and does what it
is told, now or after a restart."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from comfy_client import PromptError

from .background_client import Refused, RunsClient
from .background_fixtures import StartServer
from .background_graph import BACKGROUND, TINY, Prompt, calibration, picture, rewards

pytestmark = pytest.mark.oldest

SMALL = {"steps": 1, "width": 32, "height": 32, "bucket_size": 2, "idle_seconds": 0.05}
SHORT = {**SMALL, "generations": 2, "validate_every": 1, "slice_seconds": 0.5}
JPEG = b"\xff\xd8\xff"
LONG = {**SMALL, "generations": 10_000, "validate_every": 1, "slice_seconds": 0.0}


def in_foreground(prompt: Prompt, run_name: str) -> Prompt:
    """The same calibration by Calibrate."""
    inputs = dict(prompt[BACKGROUND]["inputs"], run_name=run_name)
    for name in ("idle_seconds", "slice_seconds"):
        del inputs[name]
    return {**prompt, BACKGROUND: {"class_type": "CalibriCalibrate", "inputs": inputs}}


def coefficients(preset: Path) -> np.ndarray:
    with safe_open(preset, "numpy") as file:
        return file.get_tensor("coefficients")


def test_it_returns_at_once_and_ends_as_a_run_in_the_foreground(start_server: StartServer) -> None:
    server, client = start_server()
    prompt = calibration(TINY, "back", **SHORT)
    result = client.run(prompt)
    assert "no result yet" in result.outputs[BACKGROUND]["text"][0]
    ended = client.finished("back")
    assert ended["images"] == ended["total"] > 0
    assert ended["gain"]["low"] <= ended["gain"]["mean"] <= ended["gain"]["high"]
    whole = client.summary("back")
    plain, *searched = whole["course"]
    assert [row["generation"] for row in whole["course"]] == [0, 1, 2]
    assert set(plain["vector"]) == {1.0}
    for row in searched:
        assert row["worst"] <= row["mean"] <= row["best"]
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
        assert row["gain"]["mean"] == pytest.approx(row["validation"] - plain["validation"])
        assert row["step"] == pytest.approx(row["sigma"], rel=0.5)  # but for chance
        assert len(row["vector"]) == len(whole["coordinates"])
    assert client.call("GET", "/back?since=2")["course"] == [searched[-1]]
    with pytest.raises(Refused, match="since"):
        client.call("GET", "/back?since=-1")
    assert client.picture("back").startswith(JPEG)
    assert client.act("back", "save")["preset"] == ended["preset"]  # it is there already
    client.run(in_foreground(prompt, "front"))
    user, output = server.folder / "user", server.output / "calibri"
    record = json.loads((user / "calibri" / "runs" / "back" / "run.json").read_text())
    assert record["progress"]["drawn"] == ended["images"]
    assert rewards(user, "back") == rewards(user, "front")
    found = coefficients(server.models / "calibri" / ended["preset"])
    np.testing.assert_array_equal(found, coefficients(output / "front" / "preset.safetensors"))
    assert {"report.png", "report.json", "before_after.png"} <= {
        file.name for file in (output / "back").iterdir()
    }
    # What was searched in one way is known in the other.
    client.run(in_foreground(prompt, "back"))
    assert len(list((user / "calibri" / "runs").iterdir())) == 2
    # The result is a new output of the node, once.
    assert "gain" in client.run(prompt).outputs[BACKGROUND]["text"][0]
    again = client.until_done(client.run(prompt).prompt_id)
    (cached,) = (data for kind, data in again["status"]["messages"] if kind == "execution_cached")
    assert BACKGROUND in cached["nodes"]


def test_it_pauses_goes_on_stops_and_finishes_when_told(start_server: StartServer) -> None:
    server, client = start_server()
    # One slice would take all day: it hears what it is told while it runs.
    client.run(calibration(TINY, "run", **{**LONG, "slice_seconds": 86_400.0}))
    assert client.summaries()[0]["id"] == "run"
    client.until("run", lambda now: now["generation"] >= 1)
    assert client.act("run", "pause")["state"] == "paused"
    resting = _at_rest(client)
    client.run(picture(TINY, 1))
    assert client.summary("run")["images"] == resting["images"]
    client.act("run", "resume")
    # Stopped before it has found anything it would have no preset.
    going = client.until(
        "run", lambda now: now["images"] > resting["images"] and now["best"], seconds=120
    )
    assert (going["state"], going["reason"]) == ("running", "")
    assert client.picture("run").startswith(JPEG)
    saved = client.act("run", "save")["preset"]
    assert (server.models / "calibri" / saved).is_file()
    client.act("run", "stop")
    stopped = client.until("run", lambda now: now["state"] == "stopped" and now["preset"])
    assert (server.models / "calibri" / stopped["preset"]).is_file()
    _at_rest(client)
    # Its models were let go: they are made again from what it has stored.
    client.act("run", "resume")
    client.until("run", lambda now: now["images"] > stopped["images"])
    client.act("run", "finish")
    ended = client.finished("run")
    assert ended["generation"] < 100
    _at_rest(client)
    client.call("DELETE", "/run")
    assert client.summaries() == []
    runs = server.folder / "user" / "calibri" / "runs"
    (trash,) = (runs / ".trash").iterdir()
    assert {"journal.sqlite", "run.json", "config.json"} <= {file.name for file in trash.iterdir()}
    assert not (runs / "run").exists()


def test_who_waits_for_an_empty_queue_can_ask_for_room(start_server: StartServer) -> None:
    _, client = start_server()
    day = {**LONG, "slice_seconds": 86_400.0, "idle_seconds": 2.0}
    client.run(calibration(TINY, "run", **day))
    client.until("run", lambda now: now["images"])
    assert client.queue_length() == 1
    assert client.call("POST", "/make-room") == {}
    now = client.until("run", lambda now: client.queue_length() == 0, seconds=30)
    assert (now["state"], now["slices"]) == ("running", 1)
    client.until("run", lambda later: later["images"] > now["images"])


def test_after_a_restart_it_offers_itself_and_goes_on_as_if_nothing_had_been(
    start_server: StartServer,
) -> None:
    server, client = start_server()
    client.run(calibration(TINY, "run", **LONG))
    client.until("run", lambda now: now["generation"] >= 1)
    server.stop()
    server.start()
    images = client.summary("run")["images"]
    assert client.summary("run")["state"] == "interrupted"
    client.run(picture(TINY, 1))
    time.sleep(0.5)
    assert client.summary("run")["images"] == images
    # Under the model's name there is another one for a while.
    server.stop()
    model = server.models / "diffusion_models" / TINY
    own = model.read_bytes()
    save_file({name: weights + 0.01 for name, weights in load_file(model).items()}, model)
    server.start()
    client.act("run", "resume")
    refused = client.until("run", lambda now: now["state"] == "paused")
    assert (refused["images"], "model" in refused["reason"]) == (images, True), refused["reason"]
    server.stop()
    model.write_bytes(own)
    server.start()
    client.act("run", "resume")
    client.until("run", lambda now: now["images"] > images)
    client.act("run", "finish")
    ended = client.finished("run")["generation"]
    client.run(in_foreground(calibration(TINY, "run", **{**LONG, "generations": ended}), "whole"))
    user = server.folder / "user"
    assert rewards(user, "run") == rewards(user, "whole")


def test_changed_settings_are_refused_by_name_or_become_a_run_from_its_result(
    start_server: StartServer,
) -> None:
    server, client = start_server()
    client.run(calibration(TINY, "run", **SHORT))
    client.finished("run")
    changed = calibration(TINY, "run", **{**SHORT, "steps": 2})
    with pytest.raises(PromptError, match=r"other settings: sampling.*steps.*1, now 2"):
        client.run(changed)
    changed[BACKGROUND]["inputs"]["if_changed"] = "new run from its result"
    client.run(changed)
    client.finished("run-2")
    client.run(changed)  # the same wish is the same run
    assert {run["id"] for run in client.summaries()} == {"run", "run-2"}
    configs = [
        json.loads((server.folder / "user/calibri/runs" / run / "config.json").read_text())
        for run in ("run", "run-2")
    ]
    assert [("start" in config) for config in configs] == [False, True]


def test_what_it_cannot_do_is_answered_in_a_sentence(start_server: StartServer) -> None:
    _, client = start_server()
    with pytest.raises(PromptError, match="cannot name a file"):
        client.run(calibration(TINY, "../elsewhere"))
    with pytest.raises(PromptError, match="17 x 32"):
        client.run(calibration(TINY, "run", **{**SHORT, "width": 17}))
    stray = {"1": {"class_type": "CalibriSlice", "inputs": {"run": "run", "slice": 1}}}
    with pytest.raises(PromptError, match="queues it itself"):
        client.run(stray)
    for method, path, status in (
        ("GET", "/nobody", 404),
        ("POST", "/nobody/pause", 404),
        ("GET", "/..%2F..%2Fcomfyui.db", 404),
        ("DELETE", "/nobody", 404),
    ):
        with pytest.raises(Refused) as refused:
            client.call(method, path)
        assert refused.value.status == status
        assert refused.value.sentence
    client.run(calibration(TINY, "run", **{**LONG, "idle_seconds": 3600.0}))
    for action, status in (("resume", 409), ("dance", 404), ("follow", 400)):
        with pytest.raises(Refused) as refused:
            client.act("run", action)
        assert refused.value.status == status
        assert refused.value.sentence


def _at_rest(client: RunsClient) -> dict[str, Any]:
    """The summary once nothing runs any more."""
    return client.until("run", lambda _: client.queue_length() == 0)
