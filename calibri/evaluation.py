"""What a calibration measures, and the protocol of whatever measures it.

A sample is one image to be made: a prompt and the seed of its noise. The noise belongs to (role,
generation, prompt, image) and to nothing else, so every candidate of a generation sees the same
noise and a picture does not depend on which batch it was made in. `Evaluator` turns candidates and
samples into rewards; `session.py` drives it through the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Batch = tuple[tuple[int, int], ...]
"""(candidate, position in the bucket) pairs that run in one forward."""


class RewardError(ValueError):
    """The reward returned something that is not one finite number per image."""


class BatchTooLargeError(RuntimeError):
    """The evaluator has not enough memory for this batch; a smaller one may still fit.

    `images` is its size, where it is not the one that was asked for.
    """

    def __init__(self, message: str = "", images: int | None = None) -> None:
        super().__init__(message)
        self.images = images


class ImageTooLargeError(RuntimeError):
    """A single image does not fit in memory, which no halving mends."""


@dataclass(frozen=True)
class Sample:
    """One image of a bucket.

    `prompt` indexes the run's prompts, those searched on and then those held out
    (`RunConfig.all_prompts`); `seed` is below 2**63 and seeds all of the image's noise.
    """

    prompt: int
    seed: int


class Evaluator(Protocol):
    """ComfyUI's sampler, a torch loop, a cluster: anything that gives one reward per image.

    `plan` must depend on its arguments only. It is called once per evaluation and its answer is
    journalled, because equal batch shapes are what makes a resumed run bit-equal.
    """

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """Split candidates x bucket into batches, every pair exactly once."""
        ...

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)] of `vectors` [K, N] at the batch's pairs.

        May raise anything, an interrupt for instance: the run stops there and can be resumed.
        Raises BatchTooLargeError to be called again with halves of the batch.
        """
        ...

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        """As `run`, but the values of one of the run's judges (`judging.py`)."""
        ...

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> NDArray[np.uint8]:
        """Pictures [K, len(bucket), H, W, 3] for previews and grids."""
        ...


@runtime_checkable
class ConcurrentEvaluator(Evaluator, Protocol):
    """An evaluator that draws several batches at once (`cluster.py`)."""

    def answer(
        self, pending: Sequence[Batch], vectors: Floats, bucket: Sequence[Sample], judge: str
    ) -> tuple[Batch, Floats]:
        """One of `pending` that is done, with its rewards or the `judge`'s values.

        It may go on with the others. Raises as `run`; a BatchTooLargeError tells its images.
        """
        ...


def noise_seed(seed: int, role: str, generation: int, prompt: int, image: int) -> int:
    """A 63-bit seed that depends on these five values and is the same on every machine."""
    text = f"{seed}/{role}/{generation}/{prompt}/{image}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def samples(seed: int, role: str, generation: int, prompts: Iterable[int]) -> tuple[Sample, ...]:
    """One sample per entry of `prompts`; a prompt that comes again gets another image's noise."""
    seen: Counter[int] = Counter()
    made = []
    for prompt in prompts:
        made.append(Sample(prompt, noise_seed(seed, role, generation, prompt, seen[prompt])))
        seen[prompt] += 1
    return tuple(made)


def training_bucket(
    seed: int, generation: int, prompts: int, size: int, start: int | None = None
) -> tuple[Sample, ...]:
    """The bucket of one generation: `size` of `prompts` prompts, `generation` counted from 1.

    Buckets walk through shuffled passes over the prompts, so each prompt is used equally often.
    `start` counts the samples of all buckets before; without it they had the same size.
    """
    start = (generation - 1) * size if start is None else start
    chosen: list[int] = []
    for turn in range(start // prompts, (start + size - 1) // prompts + 1):
        order = _order(seed, turn, prompts)
        first = turn * prompts
        chosen += order[max(start - first, 0) : start + size - first]
    return samples(seed, "generation", generation, chosen)


@lru_cache(maxsize=2)  # one pass lasts many generations, and a bucket may touch two
def _order(seed: int, turn: int, prompts: int) -> tuple[int, ...]:
    return tuple(sorted(range(prompts), key=lambda p: noise_seed(seed, "order", turn, p, 0)))


def check_rewards(rewards: object, batch: Batch, reward: str, prompts: Sequence[str]) -> Floats:
    """Rewards as float64 [len(batch)]; `prompts` are the batch's texts, for the message.

    Raises RewardError for another count or for a number that is not finite.
    """
    given = np.asarray(rewards, dtype=np.float64)
    if given.shape != (len(batch),):
        raise RewardError(
            f"The reward {reward} returned values of shape {given.shape} for {len(batch)} images: "
            "it must return one number per image. Mend the reward and run again; the run goes on "
            "where it stopped."
        )
    wrong = np.flatnonzero(~np.isfinite(given))
    if wrong.size:
        first = int(wrong[0])
        raise RewardError(
            f"The reward {reward} returned {given[first]} for the prompt {prompts[first]!r}: a "
            "reward must be a finite number. Mend the reward, or look at the picture for NaNs, and "
            "run again; the run goes on where it stopped."
        )
    # SQLite and JSON do not keep the sign of zero.
    return given + 0.0
