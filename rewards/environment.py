"""Python environments for workers, made by uv when they are first needed.

An environment belongs to what it was made of: its folder has a hash of that in its name, so a
changed declaration gets a new one. A file written last says that it is whole; one without is made
again from the beginning.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from .waiting import LOOK, Report

CURRENT = "current"  # a `python`: ComfyUI's own, no environment
MARKER = "calibri-environment.json"
LINES = 6  # of uv's last words, in an error message
ROUTINE = ("Using ", "Creating ", "Activate ")  # begins lines of uv's that say nothing
# Variables that would lead the worker's Python to the packages of another one.
LEADING_AWAY = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")


@dataclass(frozen=True)
class Environment:
    """What an environment is made of, as the server-side file declares it.

    `python`: a version for uv, or "current". `packages`: requirements as pip writes them.
    `install_options`: further arguments of `uv pip install`. Only with `downloads` may uv use the
    network; without, it takes what it has in its cache or is given by `--find-links`.
    """

    python: str
    packages: tuple[str, ...] = ()
    install_options: tuple[str, ...] = ()
    downloads: bool = False

    @property
    def key(self) -> str:
        """Changes with everything that changes what is installed."""
        made_of = json.dumps([self.python, self.packages, self.install_options])
        return hashlib.sha256(made_of.encode()).hexdigest()[:12]

    def folder(self, name: str, root: Path) -> Path:
        """Where the environment of the reward `name` belongs, below `root`."""
        return root / f"{re.sub(r'[^A-Za-z0-9.+-]+', '-', name)}-{self.key}"


def command(name: str, declared: Environment, root: Path, here: Path, report: Report) -> list[str]:
    """The Python to start, its environment made if need be; `here`: where uv runs.

    RuntimeError with a sentence where it cannot be made.
    """
    if declared.python == CURRENT:
        return [sys.executable]
    folder = declared.folder(name, root)
    if not is_whole(folder):
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            with lock.acquire(timeout=0):
                if not is_whole(folder):
                    _make(name, declared, folder, here, report)
        except filelock.Timeout:
            raise RuntimeError(
                f"Another ComfyUI is making {name}'s environment in {folder}; queue this again "
                "when it is done."
            ) from None
    # -I: neither the user's own packages nor variables reach into it.
    return [str(python_of(folder)), "-I"]


def is_whole(folder: Path) -> bool:
    """Whether an environment was made to its end, and still has its Python."""
    # A link to a Python that was removed or moved is there, and leads nowhere.
    return (folder / MARKER).is_file() and python_of(folder).exists()


def python_of(folder: Path) -> Path:
    """An environment's Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def find_uv() -> list[str] | None:
    """The command uv: a program on PATH, or a package of this Python's."""
    found = shutil.which("uv")
    # A pyenv shim stands on PATH even where no uv is behind it.
    if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
        return [found]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else None


def _make(name: str, declared: Environment, folder: Path, here: Path, report: Report) -> None:
    uv = find_uv()
    if uv is None:
        raise RuntimeError(
            f"{name} needs uv to make its environment, and there is none: run "
            f"'{sys.executable} -m pip install uv', then queue this again."
        )
    shutil.rmtree(folder, ignore_errors=True)
    uv += [] if declared.downloads else ["--offline"]
    install = _Steps(name, declared, folder, here, report)
    install.run(1, [*uv, "venv", "--python", declared.python, str(folder)])
    if declared.packages:
        into = ["--python", str(python_of(folder))]
        wanted = [*declared.install_options, *declared.packages]
        install.run(2, [*uv, "pip", "install", *into, *wanted])
    freeze = install.run(3, [*uv, "pip", "freeze", "--python", str(python_of(folder))])
    (folder / MARKER).write_text(json.dumps({"installed": freeze}, indent=1), encoding="utf-8")


class _Steps:
    """Runs uv's commands one after the other, their output in a log beside the environment."""

    TOTAL = 3

    def __init__(
        self, name: str, declared: Environment, folder: Path, here: Path, report: Report
    ) -> None:
        self._name, self._declared, self._here, self._report = name, declared, here, report
        self._log = folder.with_name(f"{folder.name}.log")
        self._log.write_text("", encoding="utf-8")
        downloads = "automatic" if declared.downloads else "never"
        kept = {key: text for key, text in os.environ.items() if key not in LEADING_AWAY}
        self._variables = {**kept, "UV_PYTHON_DOWNLOADS": downloads, "NO_COLOR": "1"}

    def run(self, step: int, arguments: Sequence[str]) -> list[str]:
        """What a command printed that is not routine; RuntimeError where it failed."""
        head = f"{self._name}: making its environment"
        self._report(head, step - 1, self.TOTAL)
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=self._here,
            env=self._variables,
        )
        printed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read_lines, args=(process, printed), daemon=True).start()
        lines: list[str] = []
        try:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"$ {' '.join(arguments)}\n")
                while True:
                    try:
                        line = printed.get(timeout=LOOK)
                    except queue.Empty:
                        line = ""
                    if line is None:
                        break
                    if line:
                        lines.append(line)
                        log.write(f"{line}\n")
                    said = f": {lines[-1].strip()}" if lines else ""
                    self._report(f"{head}{said}", step - 1, self.TOTAL)
            process.wait()
        finally:
            process.kill()
        telling = [line for line in lines if not line.startswith(ROUTINE)]
        if process.returncode != 0:
            self._raise(telling)
        self._report(head, step, self.TOTAL)
        return telling

    def _raise(self, lines: Sequence[str]) -> None:
        said = " ".join(line.strip() for line in lines[-LINES:])
        mend = "correct its declaration"
        if not self._declared.downloads:
            mend = "it may not download anything: write 'downloads: true' there to allow it"
        raise RuntimeError(
            f"{self._name}'s environment could not be made; {mend}. uv said: {said} "
            f"(log: {self._log})"
        )


def _read_lines(process: subprocess.Popen[str], printed: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        printed.put(line.rstrip())
    printed.put(None)
