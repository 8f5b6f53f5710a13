"""Waiting for something outside this process, with a way out: a time limit, and Cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

LOOK = 0.2  # seconds between two looks at Cancel

Result = TypeVar("Result")
Report = Callable[[str, int, int], None]
"""Hears what is being waited for, and steps done of a total (0 of 0 where that is not known); it is
called a few times a second and may raise to give up waiting."""


class Waiting(Generic[Result]):
    """`function` in a thread of its own, which the process does not wait for when it ends."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._began = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def result(self, seconds: float, report: Report, words: str) -> Result:
        """What the function returns or raises; TimeoutError `seconds` after it began.

        A second call goes on waiting: one that was given up again and again ends all the same.
        """
        deadline = self._began + seconds
        while not self._done.wait(min(LOOK, max(0.0, deadline - time.monotonic()))):
            report(words, 0, 0)
            if time.monotonic() >= deadline:
                raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
