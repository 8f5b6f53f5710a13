"""Environments for workers: made by uv from a wheel that the test builds, without any network."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from comfyui_calibri.rewards import environment
from comfyui_calibri.rewards.declarations import WorkerDeclaration
from comfyui_calibri.rewards.environment import CURRENT, MARKER, Environment, command, python_of
from comfyui_calibri.rewards.external_reward import ENVIRONMENTS
from comfyui_calibri.rewards.worker import Scorer, Worker

MODULE = """
class Scorer:
    def score(self, images, prompts):
        return [{version} + len(prompt) for prompt in prompts]
"""


def build_wheel(folder: Path, version: str) -> None:
    """A wheel of a package that ComfyUI has not: tiny-scorer."""
    folder.mkdir(exist_ok=True)
    info = f"tiny_scorer-{version}.dist-info"
    files = {
        "tiny_scorer.py": MODULE.format(version=version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-scorer\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"tiny_scorer-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    for version in ("1.5", "2.5"):
        build_wheel(tmp_path / "wheels", version)
    return tmp_path


def tiny(version: str) -> Environment:
    return Environment(
        python=sys.executable,
        packages=(f"tiny-scorer=={version}",),
        install_options=("--no-index", "--find-links=wheels"),
    )


class Heard:
    """A report that keeps what it hears, and gives up at `cancel_at`."""

    def __init__(self, cancel_at: str | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.words: list[str] = []
        self._cancel_at = cancel_at

    def __call__(self, words: str, done: int, total: int) -> None:
        self.words.append(words)
        self.steps.append((done, total))
        if self._cancel_at and self._cancel_at in words:
            raise KeyboardInterrupt


def make(name: str, made_of: Environment, root: Path, report: Any) -> list[str]:
    return command(name, made_of, root / ENVIRONMENTS, root, report)


def test_an_environment_is_made_once_and_a_worker_runs_in_it(wheels: Path) -> None:
    heard = Heard()
    python = make("My scorer", tiny("1.5"), wheels, heard)
    folder = tiny("1.5").folder("My scorer", wheels / ENVIRONMENTS)
    assert python == [str(python_of(folder)), "-I"]
    assert folder.name.startswith("My-scorer-")
    assert json.loads((folder / MARKER).read_text()) == {"installed": ["tiny-scorer==1.5"]}
    assert heard.steps[0] == (0, 3)
    assert heard.steps[-1] == (3, 3)
    assert any("Installed 1 package" in words for words in heard.words)
    assert "tiny-scorer" in folder.with_name(f"{folder.name}.log").read_text()
    # ComfyUI's own packages are not in it, nor is what leads there.
    scorer = Scorer("tiny_scorer:Scorer", wheels, wheels / "log", {}, {"PYTHONPATH": "/nowhere"})
    worker = Worker(
        "My scorer", scorer, lambda report: make("My scorer", tiny("1.5"), wheels, again)
    )
    again = Heard()
    scores = worker.score(np.zeros((2, 2, 2, 3), np.uint8), ["a", "bcd"], again)
    assert scores == [2.5, 4.5]
    assert not any("making" in words for words in again.words)
    worker.close()


def test_another_declaration_has_another_environment(wheels: Path) -> None:
    first, second = tiny("1.5"), tiny("2.5")
    assert first.folder("X", wheels) != second.folder("X", wheels)
    assert first.key == Environment(first.python, first.packages, first.install_options, True).key
    assert make("X", Environment(CURRENT), wheels, Heard()) == [sys.executable]


def test_an_environment_whose_python_is_gone_is_made_again(wheels: Path) -> None:
    python = Path(make("X", tiny("1.5"), wheels, Heard())[0])
    python.unlink()
    python.symlink_to(wheels / "an updated Python")
    make("X", tiny("1.5"), wheels, Heard())
    assert python.exists()


@pytest.mark.parametrize("broken", ["cancelled", "half-made"])
def test_a_half_made_environment_is_never_used(wheels: Path, broken: str) -> None:
    folder = tiny("2.5").folder("X", wheels / ENVIRONMENTS)
    if broken == "cancelled":
        with pytest.raises(KeyboardInterrupt):
            make("X", tiny("2.5"), wheels, Heard(cancel_at="Resolved"))
    else:
        python_of(folder).parent.mkdir(parents=True)
        python_of(folder).write_text("#!/bin/sh\nexit 1\n")
    assert not (folder / MARKER).exists()
    make("X", tiny("2.5"), wheels, Heard())
    assert (folder / MARKER).exists()


def test_what_uv_says_is_in_the_error(wheels: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"X's environment could not be made; it may not down"
    ) as e:
        make("X", tiny("9.9"), wheels, Heard())
    assert "tiny-scorer" in str(e.value)
    allowed = Environment(
        sys.executable, ("tiny-scorer==9.9",), tiny("9.9").install_options, downloads=True
    )
    with pytest.raises(
        RuntimeError, match=r"could not be made; correct its declaration. uv said: "
    ):
        make("X", allowed, wheels, Heard())


def test_downloads_happen_only_where_they_are_declared(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(self: Any, step: int, arguments: list[str]) -> list[str]:
        calls.append((arguments, self._variables["UV_PYTHON_DOWNLOADS"]))
        if "venv" in arguments:
            Path(arguments[-1]).mkdir(parents=True)
        return []

    monkeypatch.setattr(environment._Steps, "run", run)
    make("X", Environment("3.11", ("numpy",)), wheels, Heard())
    assert all("--offline" in arguments and python == "never" for arguments, python in calls)
    calls.clear()
    make("Y", Environment("3.11", ("numpy",), downloads=True), wheels, Heard())
    assert not any("--offline" in arguments or python == "never" for arguments, python in calls)
    assert WorkerDeclaration(kind="worker", entry="a:B", licence="").variables == {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def test_without_uv_the_error_says_how_to_get_it(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "find_uv", lambda: None)
    with pytest.raises(RuntimeError, match=r"X needs uv .*-m pip install uv"):
        make("X", tiny("1.5"), wheels, Heard())


def test_two_comfyuis_do_not_make_it_at_once(wheels: Path) -> None:
    folder = tiny("1.5").folder("X", wheels / ENVIRONMENTS)
    folder.parent.mkdir()
    other = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    with other, pytest.raises(RuntimeError, match="Another ComfyUI is making X's environment"):
        make("X", tiny("1.5"), wheels, Heard())
