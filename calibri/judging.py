"""What judges a run's choice beside the reward that made it: other rewards, and diversity.

A reward that is searched can be exploited, and then it rises while others fall, or while all
pictures of a prompt become alike. Judges see the plain model's and the chosen images of the
confirmation, from the same noise. They take no part in the search, so they are not what makes a run
this run: one that is connected later judges a run that has ended long ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .configuration import RunConfig
from .evaluation import (
    Batch,
    BatchTooLargeError,
    ConcurrentEvaluator,
    Evaluator,
    Floats,
    Sample,
    check_rewards,
    noise_seed,
)
from .journal import Evaluation
from .selection import Interval, mean_interval, prompt_means
from .yielding import YieldedError

DIVERSITY = "diversity"
"""The judge that is no reward: how far two images of one prompt lie apart (`diversity.py`)."""
DIVERSITY_PROMPTS = 16
WITHOUT_JUDGE = "without a judge"
"""The kind of an event: a judge could not score, and the run ends without it."""


class JudgeError(Exception):
    """A judge cannot score; the message says why. The run ends without it."""


@dataclass(frozen=True)
class Judge:
    """One judge's evaluation of a run that ended: its journalled role and what it sees."""

    name: str
    role: str
    bucket: tuple[Sample, ...]


@dataclass(frozen=True)
class Judgement:
    """A judge's means for the plain model and for the choice, and the paired change, over prompts.

    No choice was made by them, so the interval needs no widening.
    """

    name: str
    before: Interval
    after: Interval
    change: Interval
    samples: int


def judges(config: RunConfig, last: int) -> list[Judge]:
    """Who judges the choice of a search of `last` generations.

    Diversity compares each sample's image with its `twin`'s, for the first prompts.
    """
    bucket = config.confirmation_samples(last)
    few = bucket[: _few(config)]
    return [
        # Other weights under a reward's name are another judge.
        Judge(name, f"judging {name} {mark}".rstrip(), few if name == DIVERSITY else bucket)
        for name, mark in config.judges.items()
    ]


def judged_images(config: RunConfig) -> int:
    """Values that all judges of a run give, at most: none where the plain model is recommended."""
    held_out = len(config.validation_prompts) * config.images_per_prompt
    return 2 * sum(_few(config) if name == DIVERSITY else held_out for name in config.judges)


def judgement(judge: Judge, evaluation: Evaluation) -> Judgement:
    """What a judge found of the plain model, in row 0, and of the choice, in row 1."""
    before, after = (prompt_means(rewards, judge.bucket) for rewards in evaluation.rewards)
    return Judgement(
        name=judge.name,
        before=mean_interval(before),
        after=mean_interval(after),
        change=mean_interval(after - before),
        samples=len(judge.bucket),
    )


def scored(
    evaluator: Evaluator,
    pending: Sequence[Batch],
    evaluation: Evaluation,
    judge: str,
    config: RunConfig,
) -> tuple[Batch, Floats]:
    """A batch of `pending` and its rewards [len(batch)], or a `judge`'s values of it.

    It is the first, or with a ConcurrentEvaluator whichever is done first. Raises JudgeError where
    a judge cannot give them; else whatever the evaluator raises.
    """
    vectors, bucket = evaluation.vectors, evaluation.bucket

    def measured() -> tuple[Batch, Floats]:
        if isinstance(evaluator, ConcurrentEvaluator):
            batch, values = evaluator.answer(pending, vectors, bucket, judge)
        else:
            batch = pending[0]
            values = (
                evaluator.judge(batch, vectors, bucket, judge)
                if judge
                else evaluator.run(batch, vectors, bucket)
            )
        texts = [config.all_prompts[bucket[position].prompt] for _, position in batch]
        return batch, check_rewards(values, batch, judge or config.reward, texts)

    if not judge:
        return measured()
    try:
        return measured()
    except (BatchTooLargeError, YieldedError):
        raise
    except (ValueError, RuntimeError, OSError) as error:  # an interrupt of the host is none of them
        raise JudgeError(str(error)) from error


def twin(sample: Sample) -> Sample:
    """Another image of the sample's prompt, with noise of its own."""
    return Sample(sample.prompt, noise_seed(sample.seed, "twin", 0, sample.prompt, 1))


def _few(config: RunConfig) -> int:
    return min(DIVERSITY_PROMPTS, len(config.validation_prompts))
