"""What each block does for a reward: every coefficient at several scales, one at a time.

Section 3.2 and Figure 3 of the paper: a branch is left out (scale 0) or scaled, the rest stays the
plain model, and its gain is the difference of rewards on the same prompts from the same noise. All
variants of a sample are one evaluation of the journal, the plain model being one row of it, so they
share batches, and an analysis that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import limited, plan_batches, too_many
from .coefficients import LOWER, UPPER
from .configuration import differing_settings, library_versions
from .evaluation import Batch, BatchTooLargeError, Evaluator, Floats, check_rewards, samples
from .journal import Evaluation, Journal, JournalError
from .selection import Interval, mean_interval, prompt_means

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace

ROLE = "analysis"
MAX_SCALES = 32
PLAIN = 1.0


class AnalysisError(ValueError):
    """An analysis that cannot be run as it was asked for."""


@dataclass(frozen=True)
class AnalysisConfig:
    """What one analysis is. More `images_per_prompt` go on with it, all else makes another."""

    prompts: tuple[str, ...]
    """At least two: the bands are taken over prompts."""
    reward: str
    names: tuple[str, ...]
    """The coefficients that are scaled, one at a time."""
    scales: tuple[float, ...]
    """What each is set to; 1, the plain model, is always there and not listed."""
    images_per_prompt: int = 1
    seed: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that say how images are made, as in `RunConfig`."""

    def __post_init__(self) -> None:
        if len(set(self.prompts)) < 2:
            raise AnalysisError(
                f"There are {len(set(self.prompts))} different prompts: give at least two, since "
                "the bands are taken over prompts."
            )
        if self.images_per_prompt < 1 or not self.names or not self.scales:
            raise AnalysisError(
                "The analysis has no images, no coefficients or no scales: give each at least one."
            )

    def record(self, space: EnsembleSpace) -> dict[str, Any]:
        """What tells one analysis from another, as JSON values: all but its number of images."""
        settings = {k: v for k, v in asdict(self).items() if k != "images_per_prompt"}
        told = {"kind": ROLE, "family": space.backbone.family, "granularity": space.granularity}
        record: dict[str, Any] = json.loads(json.dumps({**told, **settings}))
        return record

    def vectors(self, space: EnsembleSpace) -> Floats:
        """The variants [1 + C S, N]: the plain model, then coefficient by coefficient, scale by
        scale.
        """
        rows = [space.identity]
        for name in self.names:
            for scale in self.scales:
                row = space.identity.copy()
                row[space.names.index(name)] = scale
                rows.append(row)
        return np.stack(rows)


@dataclass(frozen=True)
class Analysis:
    """What an analysis found for C coefficients at S scales, as far as it has come.

    Gains are mean differences to the plain model in the reward's unit, with 95 % bands over
    prompts.
    """

    names: tuple[str, ...]
    scales: tuple[float, ...]
    plain: Interval
    gain: Floats
    """[C, S]"""
    low: Floats
    high: Floats
    prompts: int
    images_per_prompt: int
    images: int
    seconds: float
    """Of the batches."""

    @property
    def better(self) -> NDArray[np.bool_]:
        """Where the whole band is above the plain model: [C, S]."""
        return self.low > 0.0

    @property
    def worse(self) -> NDArray[np.bool_]:
        """Where the whole band is below it: [C, S]."""
        return self.high < 0.0


def parse_scales(text: str) -> tuple[float, ...]:
    """Scales from text such as "0, 0.5, 0.9, 1.1": in ascending order, each once, without 1.

    Raises AnalysisError where one is no number within −1…2 or none is left.
    """
    scales = set()
    for word in text.replace(",", " ").split():
        try:
            scale = float(word)
        except ValueError:
            scale = math.nan
        if not LOWER <= scale <= UPPER:
            raise AnalysisError(
                f"{word!r} is no scale: write numbers from {LOWER:g} to {UPPER:g} with commas "
                "between them, as in 0, 0.5, 0.9, 1.1, 1.5."
            )
        scales.add(scale + 0.0)  # −0 is 0
    scales.discard(PLAIN)  # the plain model is measured anyway
    if not 0 < len(scales) <= MAX_SCALES:
        raise AnalysisError(
            f"There are {len(scales)} scales beside 1, which is the plain model: give 1 to "
            f"{MAX_SCALES}."
        )
    return tuple(sorted(scales))


def analyse(
    config: AnalysisConfig,
    space: EnsembleSpace,
    evaluator: Evaluator,
    journal: Journal,
    on_batch: Callable[[int, int], None] | None = None,
    on_round: Callable[[Analysis], None] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Analysis:
    """Run, or continue, the analysis that `journal` holds.

    A round is one image of each prompt. `on_batch(done, total)` counts images, `on_round` hears
    what is known after each round that ended now. What the evaluator or a callback raises comes
    through and leaves the journal resumable. Raises JournalError where the journal belongs to
    something else, RewardError for unusable rewards.
    """
    record = config.record(space)
    if journal.config() is None:
        journal.set_config(record)
    elif changed := differing_settings(journal.config() or {}, record):
        raise JournalError(
            f"The journal {journal.path} belongs to something else: {'; '.join(changed)}. Give "
            "this analysis another name, or restore the settings to go on."
        )
    detail = {"versions": {**library_versions(), **(versions or {})}}
    journal.add_event("resumed" if journal.events() else "started", detail)
    vectors = config.vectors(space)
    total = len(vectors) * len(config.prompts) * config.images_per_prompt
    done = 0
    for round_ in range(1, config.images_per_prompt + 1):
        evaluation = _begun(config, evaluator, journal, round_, vectors)
        done += evaluation.done
        for batch in _finish(evaluation, config, evaluator, journal):
            done += len(batch)
            if on_batch is not None:
                on_batch(done, total)
        if on_round is not None and evaluation.pending:
            on_round(summarise(config, journal))
    journal.add_event("finished", detail)
    return summarise(config, journal)


def summarise(config: AnalysisConfig, journal: Journal) -> Analysis:
    """What the whole rounds of a journal say. Raises JournalError where there is none yet."""
    rounds = [
        evaluation
        for evaluation in journal.evaluations(ROLE)[: config.images_per_prompt]
        if not evaluation.pending
    ]
    if not rounds:
        raise JournalError(
            f"The analysis {journal.path} has no image of every prompt yet: let it go on."
        )
    means = np.mean([[prompt_means(row, e.bucket) for row in e.rewards] for e in rounds], axis=0)
    intervals = [mean_interval(row - means[0]) for row in means[1:]]
    shape = (len(config.names), len(config.scales))
    return Analysis(
        names=config.names,
        scales=config.scales,
        plain=mean_interval(means[0]),
        gain=np.reshape([interval.mean for interval in intervals], shape),
        low=np.reshape([interval.low for interval in intervals], shape),
        high=np.reshape([interval.high for interval in intervals], shape),
        prompts=len(config.prompts),
        images_per_prompt=len(rounds),
        images=sum(evaluation.done for evaluation in rounds),
        seconds=sum(evaluation.seconds for evaluation in rounds),
    )


def _begun(
    config: AnalysisConfig, evaluator: Evaluator, journal: Journal, round_: int, vectors: Floats
) -> Evaluation:
    """The round's evaluation, planned now or in an earlier session."""
    evaluation = journal.evaluation(ROLE, round_)
    if evaluation is None:
        bucket = samples(config.seed, ROLE, round_, range(len(config.prompts)))
        batches = plan_batches(evaluator, len(vectors), bucket, too_many(journal.shortages()))
        journal.add_evaluation(ROLE, round_, vectors, bucket, batches)
        evaluation = journal.evaluation(ROLE, round_)
        assert evaluation is not None
    return evaluation


def _finish(
    evaluation: Evaluation, config: AnalysisConfig, evaluator: Evaluator, journal: Journal
) -> Iterator[Batch]:
    """Run what is pending, batch by batch, each halved until it fits in memory."""
    pending = list(evaluation.pending)
    while pending:
        batch = pending[0]
        started = time.monotonic()
        try:
            values = evaluator.run(batch, evaluation.vectors, evaluation.bucket)
        except BatchTooLargeError:
            if len(batch) == 1:
                raise
            pending = limited(pending, len(batch))
            journal.replace_plan(evaluation, pending, too_large=len(batch))
            continue
        texts = [config.prompts[evaluation.bucket[position].prompt] for _, position in batch]
        rewards = check_rewards(values, batch, config.reward, texts)
        journal.add_result(evaluation, batch, rewards, time.monotonic() - started)
        pending.pop(0)
        yield batch
