"""A scorer in a process of its own: asked, broken in every way, killed, gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from comfyui_calibri.rewards.declarations import WorkerDeclaration
from comfyui_calibri.rewards.external_reward import external_reward
from comfyui_calibri.rewards.protocol import Reward, RewardUnavailableError
from comfyui_calibri.rewards.worker import Scorer, Worker

SCORER = """
import os, subprocess, sys, time

class Odd:
    def __init__(self, plus="0"):
        print("loading", flush=True)
        self.plus, self.seen = float(plus), 0

    def score(self, images, prompts):
        print("noise on standard output")
        os.system("echo noise of a child")
        word, self.seen = prompts[0], self.seen + 1
        if word == "exit": os._exit(7)
        if word == "exit once" and not os.path.exists("exited"):
            open("exited", "w").close()
            os._exit(7)
        if word == "hang": time.sleep(60)
        if word == "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            open("child", "w").write(str(child.pid))
        if word == "slow": time.sleep(1)
        if word == "value": raise ValueError("prompt 1 has no verb")
        if word == "other": raise KeyError("weights")
        if word == "few": return [1.0]
        if word == "nan": return [float("nan")] * len(images)
        if word == "text": return "abcdefgh"[:len(images)]
        if word == "garbage":
            for descriptor in range(3, 10):
                try: os.write(descriptor, b"Downloading weights 3 %")
                except OSError: pass
        if word == "variable": return [float(os.environ["ODD"])] * len(images)
        return [images[i, 0, 0, 0] / 255.0 + self.plus for i in range(len(images))]
"""


def quiet(*_: object) -> None:
    """A report that never gives up."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    (tmp_path / "odd.py").write_text(SCORER)
    made = []

    def start(**settings: object) -> Worker:
        scorer = {"entry": "odd.py:Odd", "folder": tmp_path, "log": tmp_path / "logs" / "odd.log"}
        scorer["variables"] = without_numpy(tmp_path / "packages", ODD="0.25")
        worker = Worker("Odd", Scorer(**{**scorer, **settings}), lambda _: [sys.executable])
        made.append(worker)
        return worker

    yield start
    for worker in made:
        worker.close()


def without_numpy(folder: Path, **variables: str) -> dict[str, str]:
    """Variables for a Python that has no NumPy, which takes most of a worker's start."""
    folder.mkdir(exist_ok=True)
    (folder / "numpy.py").write_text("raise ImportError('none here')")
    return {"PYTHONPATH": str(folder), **variables}


def greys(*values: int) -> np.ndarray:
    return np.full((len(values), 4, 6, 3), 0, np.uint8) + np.array(values, np.uint8).reshape(
        -1, 1, 1, 1
    )


def is_alive(pid: int) -> bool:
    try:
        # A zombie has ended; only its parent's question is missing.
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_scores_come_back_and_prints_end_in_the_log(make: Callable[..., Worker]) -> None:
    worker = make(options={"plus": "1"})
    assert worker.pid is None
    scores = worker.score(greys(0, 51, 255), ["a", "b", "c"], quiet)
    assert scores == pytest.approx([1.0, 1.2, 2.0])
    first = worker.pid
    worker.score(greys(0), ["a"], quiet)
    assert worker.pid == first
    log = worker._scorer.log.read_text()
    assert "noise on standard output" in log
    assert "noise of a child" in log
    assert worker.score(greys(0), ["variable"], quiet) == [0.25]


def test_a_killed_worker_is_started_again(make: Callable[..., Worker]) -> None:
    worker = make()
    worker.score(greys(51), ["a"], quiet)
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(first))
    assert worker.score(greys(51), ["a"], quiet) == [pytest.approx(0.2)]
    assert worker.pid != first


def test_a_batch_on_which_it_dies_is_tried_once_more(make: Callable[..., Worker]) -> None:
    worker = make()
    assert worker.score(greys(51), ["exit once"], quiet) == [pytest.approx(0.2)]
    with pytest.raises(RewardUnavailableError, match=r"Odd's worker ended 2 times .*odd\.log"):
        worker.score(greys(51), ["exit"], quiet)
    assert worker.score(greys(51), ["a"], quiet) == [pytest.approx(0.2)]


def test_a_worker_that_hangs_is_stopped(make: Callable[..., Worker]) -> None:
    worker = make(batch_seconds=1.5)
    worker._running(quiet)
    pid = worker.pid
    assert pid is not None
    with pytest.raises(RewardUnavailableError, match=r"Odd scores, but did not answer within 1.5"):
        worker.score(greys(0), ["hang"], quiet)
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("prompt", "kind", "said"),
    [
        ("value", ValueError, "^Odd: prompt 1 has no verb"),
        ("other", RuntimeError, r"Odd failed: KeyError: 'weights' \(its log: .*odd\.log\)"),
        ("text", RuntimeError, "Odd failed: ValueError|Odd: could not convert"),
        ("garbage", RewardUnavailableError, "Odd's worker answered b'Downloading .*no answer"),
    ],
)
def test_what_goes_wrong_in_the_scorer_is_said(
    make: Callable[..., Worker], prompt: str, kind: type[Exception], said: str
) -> None:
    worker = make()
    with pytest.raises((ValueError, RuntimeError), match=said) as raised:
        worker.score(greys(0, 1), [prompt, ""], quiet)
    assert isinstance(raised.value, kind) or prompt == "text"
    assert worker.score(greys(255), ["a"], quiet) == [1.0]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("nowhere:Odd", "Odd could not be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("odd.py:Missing", "Odd could not be loaded: AttributeError"),
        ("broken.py:Odd", "Odd could not be loaded: SyntaxError"),
    ],
)
def test_a_scorer_that_does_not_load_is_said(
    make: Callable[..., Worker], tmp_path: Path, entry: str, said: str
) -> None:
    (tmp_path / "broken.py").write_text("def")
    with pytest.raises(RuntimeError, match=said):
        make(entry=entry).score(greys(0), ["a"], quiet)


def test_a_program_that_is_no_python_is_said(tmp_path: Path) -> None:
    scorer = Scorer("odd.py:Odd", tmp_path, tmp_path / "odd.log")
    missing = Worker("Odd", scorer, lambda _: [str(tmp_path / "no-python")])
    with pytest.raises(RewardUnavailableError, match="Odd's worker could not be started with"):
        missing.score(greys(0), ["a"], quiet)
    chatty = tmp_path / "chatty"
    chatty.write_text("#!/bin/sh\necho Welcome to this shell\nsleep 5\n")
    chatty.chmod(0o755)
    with pytest.raises(RewardUnavailableError, match="answered b'Welcome to t"):
        Worker("Odd", scorer, lambda _: [str(chatty)]).score(greys(0), ["a"], quiet)


def test_cancel_leaves_the_worker_and_its_weights(make: Callable[..., Worker]) -> None:
    worker = make()
    worker.score(greys(0), ["a"], quiet)
    pid = worker.pid

    def cancel(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.score(greys(255), ["slow"], cancel)
    # Its late answer is not taken for this one's.
    assert worker.score(greys(51), ["a"], quiet) == [pytest.approx(0.2)]
    assert worker.pid == pid


def test_it_ends_when_nobody_holds_it(make: Callable[..., Worker], tmp_path: Path) -> None:
    worker = Worker("Odd", make()._scorer, lambda _: [sys.executable])
    worker.score(greys(0), ["a"], quiet)
    pid = worker.pid
    assert pid is not None
    del worker
    assert wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("end", ["return", "SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_the_process_that_started_it(
    make: Callable[..., Worker], tmp_path: Path, end: str, busy: bool
) -> None:
    make()
    program = f"""
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from comfyui_calibri.rewards.worker import Scorer, Worker
folder = Path({str(tmp_path)!r})
variables = {{"PYTHONPATH": str(folder / "packages")}}
scorer = Scorer("odd.py:Odd", folder, folder / "odd.log", {{}}, variables)
worker = Worker("Odd", scorer, lambda _: [sys.executable])
pixels = np.zeros((1, 2, 2, 3), np.uint8)
worker.score(pixels, ["child"], lambda *_: None)
print(worker.pid, flush=True)
if {busy}:
    ask = lambda: worker.score(pixels, ["hang"], lambda *_: None)
    threading.Thread(target=ask, daemon=True).start()
    time.sleep(0.3)
if {end!r} != "return":
    os.kill(os.getpid(), getattr(signal, {end!r}))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    pid = int(ran.stdout)
    assert wait_until(lambda: not is_alive(pid)), ran.stderr
    if sys.platform != "win32":
        child = int((tmp_path / "child").read_text())
        assert wait_until(lambda: not is_alive(child))


def test_a_log_that_is_gone_hides_no_cause(make: Callable[..., Worker], tmp_path: Path) -> None:
    worker = make()
    worker.score(greys(0), ["a"], quiet)
    (tmp_path / "logs" / "odd.log").unlink()
    with pytest.raises(RewardUnavailableError, match=r"is no answer.* cannot be read"):
        worker.score(greys(0), ["garbage"], quiet)


def test_the_reward_checks_what_goes_in_and_what_comes_out(
    make: Callable[..., Worker], tmp_path: Path
) -> None:
    make()
    declared = WorkerDeclaration(
        kind="worker", entry="odd.py:Odd", python="current", licence="MIT", batch=2, typical=(0, 1)
    )
    reward = external_reward("Odd", declared, tmp_path, quiet)
    assert isinstance(reward, Reward)
    assert (reward.differentiable, reward.card.licence) == (False, "MIT")
    images = torch.tensor([0.0, 0.2, 1.0]).view(3, 1, 1, 1).expand(3, 4, 4, 3)
    scores = reward.score(images, ["a", "b", "c"])
    torch.testing.assert_close(scores, torch.tensor([0.0, 0.2, 1.0]))
    name = rf"Odd \({reward.name[5:13]}\)"
    for prompt, said in {"few": "answered", "nan": "NaN", " ": "prompt 1 of 2 is empty"}.items():
        with pytest.raises(ValueError, match=f"{name} .*{said}"):
            reward.score(images[:2], [prompt, "b"])
    with pytest.raises(ValueError, match=f"{name} got an image with NaN"):
        reward.score(images / 0.0, ["a", "b", "c"])


def test_a_workers_name_changes_with_its_code_packages_and_options(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(SCORER)
    plain = {"kind": "worker", "entry": "odd.py:Odd", "licence": "MIT"}

    def name(**settings: object) -> str:
        declared = WorkerDeclaration.model_validate({**plain, **settings})
        return external_reward("Odd", declared, tmp_path, quiet).name

    names = [name(), name(packages=["numpy"]), name(options={"plus": "2"}), name(version="2")]
    assert name(timeout=3, batch=4) == names[0]
    (tmp_path / "odd.py").write_text(SCORER + "# another\n")
    assert len({*names, name()}) == 5
