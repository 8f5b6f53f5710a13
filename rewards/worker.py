"""A scorer in a process of its own, started when it is needed and again when it died.

`worker_main.py` is what runs there. The process ends with this one: at a normal end it is told to,
and when this process is killed its requests end, which it notices whatever it is doing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import worker_main
from .protocol import RewardUnavailableError
from .waiting import Report, Waiting

Answer = tuple[dict[str, Any], bytearray]

LOG_BYTES = 4 * 2**20  # a longer log is put aside when the worker starts
LOG_LINES = 3  # of its end, in an error message
LOG_TAIL = 64 * 2**10  # bytes that are read of it
END_SECONDS = 2.0  # for a worker to end by itself
TRIES = 2


@dataclass(frozen=True)
class Scorer:
    """What a worker runs. `entry`: `module:Class`, or `file.py:Class` below `folder`.

    `options` go to the class, `variables` into its environment.
    """

    entry: str
    folder: Path
    log: Path
    options: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 600.0
    batch_seconds: float = 300.0


class Worker:
    """One process at a time that scores for the reward `name`.

    `python` gives the program to start it with, and may take its time the first time.
    """

    def __init__(self, name: str, scorer: Scorer, python: Callable[[Report], list[str]]) -> None:
        self._name, self._scorer, self._python = name, scorer, python
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None
        self._cancelled: Waiting[Answer] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid

    def score(self, pixels: np.ndarray, prompts: Sequence[str], report: Report) -> list[float]:
        """The scores of uint8 `pixels` [B, H, W, 3]; a batch on which it dies is tried twice.

        ValueError is the scorer's own, RuntimeError any other failure of its code;
        RewardUnavailableError where it died, hangs or answers nonsense.
        """
        request = {"shape": pixels.shape, "prompts": list(prompts)}
        for _ in range(TRIES):
            process = self._running(report)
            if process is None:
                continue
            words, seconds = f"{self._name} scores", self._scorer.batch_seconds
            answer = self._exchange(process, request, pixels, seconds, report, words)
            if answer is not None:
                return self._scores(answer)
        raise RewardUnavailableError(
            f"{self._name}'s worker ended {TRIES} times without an answer{self._last_words()}"
        )

    def close(self) -> None:
        """End the process; the next score starts another."""
        self._end()
        self._process, self._cancelled = None, None

    def _running(self, report: Report) -> subprocess.Popen[bytes] | None:
        """The process, its scorer loaded; None where it died while it was started."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        python = self._python(report)
        process = self._start(python)
        words, seconds = f"{self._name}'s worker starts", self._scorer.start_seconds
        answer = self._exchange(process, None, b"", seconds, report, words)
        if answer is None:
            return None
        if "ready" not in answer:
            self.close()
            self._fail(answer, "could not be loaded")
        return process

    def _start(self, python: list[str]) -> subprocess.Popen[bytes]:
        log = self._scorer.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            os.replace(log, log.with_suffix(".old.log"))
        task = {
            "entry": self._scorer.entry,
            "folder": str(self._scorer.folder),
            "options": dict(self._scorer.options),
        }
        with log.open("ab") as errors:
            errors.write(f"--- started {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            errors.flush()
            try:
                process = subprocess.Popen(
                    [*python, "-u", worker_main.__file__, json.dumps(task)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    bufsize=0,
                    cwd=self._scorer.folder,
                    env={**os.environ, **self._scorer.variables},
                    # Ctrl-C in ComfyUI's terminal is ComfyUI's; it ends its workers itself.
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            except OSError as error:
                raise RewardUnavailableError(
                    f"{self._name}'s worker could not be started with {python[0]}: {error}."
                ) from error
        worker_main.widen(process.stdin)
        self._process = process
        # Also when ComfyUI ends, and when nobody holds this worker any more.
        self._end = weakref.finalize(self, _end_process, process)
        return process

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        request: Mapping[str, Any] | None,
        data: Any,
        seconds: float,
        report: Report,
        words: str,
    ) -> dict[str, Any] | None:
        """One answer, to `request` if there is one; None where the process died of it."""

        def ask() -> Answer:
            if request is not None:
                worker_main.send(process.stdin, request, data)
            return worker_main.receive(process.stdout)

        try:
            if self._cancelled is not None:
                # Cancel left it at work: its loaded weights are worth waiting for.
                patience = max(seconds, self._scorer.start_seconds)
                self._cancelled.result(patience, report, words)
                self._cancelled = None
            waiting = self._cancelled = Waiting(ask)
            answer, _ = waiting.result(seconds, report, words)
        except TimeoutError:
            self.close()
            raise RewardUnavailableError(
                f"{words}, but did not answer within {seconds:g} s and was stopped; if it needs "
                f"longer, give it more seconds in its declaration{self._last_words()}"
            ) from None
        except worker_main.FrameError as error:
            self.close()
            raise RewardUnavailableError(
                f"{self._name}'s worker answered {error.seen!r}, which is no answer: something in "
                f"it writes where only Calibri may{self._last_words()}"
            ) from None
        except (EOFError, OSError):
            self.close()
            return None
        self._cancelled = None
        return answer

    def _scores(self, answer: dict[str, Any]) -> list[float]:
        if "error" in answer:
            self._fail(answer, "failed")
        scores = answer.get("scores")
        if not isinstance(scores, list):
            self.close()
            raise RewardUnavailableError(
                f"{self._name}'s worker answered without scores; was worker_main.py replaced?"
            )
        return [float(score) for score in scores]

    def _fail(self, answer: dict[str, Any], what: str) -> None:
        kind, words = answer.get("type", "Exception"), str(answer["error"])
        if kind == "ValueError" and what == "failed":
            raise ValueError(f"{self._name}: {words}")
        raise RuntimeError(f"{self._name} {what}: {kind}: {words} (its log: {self._scorer.log})")

    def _last_words(self) -> str:
        log = self._scorer.log
        try:
            with log.open("rb") as opened:
                opened.seek(max(0, log.stat().st_size - LOG_TAIL))
                lines = opened.read().decode(errors="replace").split("--- started ")[-1]
        except OSError:
            return f" (its log {log} cannot be read)."
        said = [line.strip() for line in lines.splitlines()[1:] if line.strip()][-LOG_LINES:]
        return f"; it said last: {' / '.join(said)} (log: {log})." if said else f" (log: {log})."


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """Close its requests, which ends it; kill it and its children where that is not enough."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process.stdin.close()
        process.wait(END_SECONDS)
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
