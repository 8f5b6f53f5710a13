"""How long the running batch still takes: what a slice asks when somebody waits for the machine.

A batch that is nearly done is finished, since what it has drawn would be lost; one that is not is
left at once. The answer comes from the sampler's steps in this batch and from batches before it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median

PATIENCE = 5.0  # seconds that a user's prompt may wait for a batch
_REMEMBERED = 8  # batches of one size


class YieldedError(Exception):
    """A batch ended before its time because somebody waits; nothing of it is kept."""


class YieldDecision:
    """Is told of batches and their sampler steps; foretells the end of the one that runs.

    `clock` gives seconds. A batch that was left, by an interrupt say, is forgotten when the next
    one starts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._past: dict[int, deque[tuple[float, float]]] = {}  # images: (seconds, after sampling)
        self._images = 0  # of the batch that runs, 0 between batches
        self._started = 0.0
        self._steps: list[tuple[float, int]] = []  # (when, done)
        self._all_steps = 0

    def begin(self, images: int) -> None:
        """A batch of `images` begins."""
        self._images, self._started = images, self._clock()
        self._steps, self._all_steps = [], 0

    def step(self, done: int, steps: int) -> None:
        """The sampler has done `done` of `steps` steps of the running batch.

        Said again, nothing has been done since.
        """
        if self._steps and done == self._steps[-1][1]:
            return
        if self._steps and done < self._steps[-1][1]:
            self._steps = []  # another pass of the sampler
        if done > 0:
            self._steps.append((self._clock(), done))
            self._all_steps = steps

    def end(self) -> None:
        """The running batch has its rewards."""
        now = self._clock()
        after = now - self._steps[-1][0] if self._steps else 0.0
        past = self._past.setdefault(self._images, deque(maxlen=_REMEMBERED))
        past.append((now - self._started, after))
        self._images = 0

    def remaining(self) -> float:
        """Seconds until the running batch has its rewards, decoding and scoring included.

        0 between batches, infinite where nothing is known. In the first batch of all, decoding and
        scoring are taken to last as long as sampling.
        """
        if not self._images:
            return 0.0
        now, left = self._clock(), math.inf
        if self._past:
            seconds, after = self._expected()
            left = seconds - (now - self._started)
        if self._steps:
            (first, before), (last, done) = self._steps[0], self._steps[-1]
            if not self._past:  # the model's loading counts as sampling here
                first, before = self._started, 0
                after = (last - first) / done * self._all_steps
            if done > before:
                pace = (last - first) / (done - before)
                left = (self._all_steps - done) * pace + after - (now - last)
        return max(left, 0.0)

    def at_once(self) -> bool:
        """Whether to leave the running batch, rather than end it, when somebody waits."""
        return self.remaining() > PATIENCE

    def _expected(self) -> tuple[float, float]:
        """Seconds of the running batch, and those of them after its last step, from the past."""
        # Of another size: as if each image took its share.
        size = min(self._past, key=lambda images: abs(images - self._images))
        share = self._images / size
        seconds, after = zip(*self._past[size], strict=True)
        return median(seconds) * share, median(after) * share
