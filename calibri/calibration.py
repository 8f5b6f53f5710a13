"""The calibration loop: search, validation, selection, confirmation, all through the journal.

One generation asks the search for candidates, evaluates them on a bucket of training prompts with
shared noise, and tells the search their mean rewards. Every `validate_every` generations the
distribution's mean is validated on held-out prompts. At the end `selection.py` picks among
finalists on new noise, and the gain is measured on noise that no choice has seen.

Everything that costs images is in the journal, and everything else is recomputed from it, so
calling `calibrate` again continues a run that was interrupted or whose budget was raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .batches import BatchRunner
from .configuration import RunConfig, RunConfigError, check_same_run, library_versions
from .evaluation import Evaluator, Floats, Sample, training_bucket
from .journal import Evaluation, Journal
from .search import create_search
from .selection import (
    START,
    VALIDATED_FINALISTS,
    Finalist,
    Interval,
    bootstrap_interval,
    finalist_generations,
    prompt_means,
)

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace

__all__ = ["GenerationSummary", "Outcome", "RunConfig", "RunConfigError", "calibrate"]


@dataclass(frozen=True)
class GenerationSummary:
    """One generation: the spread of its candidates' mean rewards, and the mean it moved to."""

    generation: int
    generations: int
    mean: float
    std: float
    best: float
    worst: float
    sigma: float
    vector: Floats
    validation: float | None
    """Mean validation reward of `vector`, where this generation was validated."""
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a run recommends: `vector`, the search's mean after `generation`.

    Generation 0 is the identity: the search found nothing better. START is the preset that it began
    at, where that was the best. `before`, `after` and the
    paired `gain` are mean rewards on confirmation samples, with intervals over prompts.
    """

    vector: Floats
    generation: int
    generations: int
    before: Interval
    after: Interval
    gain: Interval
    finalists: tuple[Finalist, ...]
    history: tuple[GenerationSummary, ...]
    """Every generation, those of earlier sessions included."""


def calibrate(
    config: RunConfig,
    space: EnsembleSpace,
    evaluator: Evaluator,
    journal: Journal,
    on_generation: Callable[[GenerationSummary], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Run, or continue, the calibration that `journal` holds, and say what it recommends.

    `on_generation` hears each generation that ran now; `on_batch(done, total)` counts images,
    those of earlier sessions included, and reaches `total` at the end even where a time budget
    ended the search early. What the evaluator or a callback raises comes through and leaves the
    journal resumable. Raises JournalError where the journal belongs to another configuration or
    its search cannot be recomputed, RewardError for unusable rewards.
    """
    resumed = check_same_run(journal, config, space)
    with _recorded_session(journal, config, resumed):
        run = _Run(config, space, evaluator, journal, on_generation, on_batch)
        return run.finish(run.search())


@contextmanager
def _recorded_session(journal: Journal, config: RunConfig, resumed: bool) -> Iterator[None]:
    budget = {"generations": config.generations, "max_seconds": config.max_seconds}
    detail = {"versions": library_versions(), **budget}
    journal.add_event("resumed" if resumed else "started", detail)
    try:
        yield
    except BaseException as error:
        try:
            journal.add_event("interrupted", {"error": type(error).__name__, "text": str(error)})
        except Exception as second:  # a full disk, say: the first error is the one to see
            error.__context__ = second
        raise
    journal.add_event("finished", detail)


class _Run:
    """One session's state: how far the run is, and each validated mean."""

    def __init__(
        self,
        config: RunConfig,
        space: EnsembleSpace,
        evaluator: Evaluator,
        journal: Journal,
        on_generation: Callable[[GenerationSummary], None] | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self._config = config
        self._space = space
        self._journal = journal
        self._on_generation = on_generation
        self._on_batch = on_batch
        self._runner = BatchRunner(journal, evaluator, config.reward, self._count)
        self._images = 0
        self._total = 0
        self._seconds = 0.0
        self._means: dict[int, Floats] = {0: space.identity}
        if space.warm:
            self._means[START] = space.start
        self._validation: dict[int, float] = {}
        self._history: list[GenerationSummary] = []

    def search(self) -> int:
        """Run the search to the end of its budget; returns its last generation."""
        config, space = self._config, self._space
        search = create_search(
            config.profile, space.start, space.lower, space.upper, config.seed, space.deviation
        )
        self._total = self._most_images(search.population)
        self._validate(0)
        generation = 0
        while self._goes_on(generation):
            generation += 1
            known = self._journal.evaluation("generation", generation)
            bucket = training_bucket(
                config.seed, generation, len(config.prompts), config.bucket_size
            )
            evaluated = self._evaluate("generation", generation, search.ask(), bucket)
            rewards = evaluated.rewards.mean(axis=1)
            sigma = search.sigma
            search.tell(rewards)
            self._means[generation] = search.mean.copy()
            if generation % config.validate_every == 0:
                self._validate(generation)
            summary = GenerationSummary(
                generation=generation,
                generations=config.generations,
                mean=float(rewards.mean()),
                std=float(rewards.std()),
                best=float(rewards.max()),
                worst=float(rewards.min()),
                sigma=sigma,
                vector=self._means[generation],
                validation=self._validation.get(generation),
                seconds=evaluated.seconds,
            )
            self._history.append(summary)
            if self._on_generation is not None and (known is None or known.pending):
                self._on_generation(summary)
        if generation not in self._validation:
            self._validate(generation)
        return generation

    def finish(self, last: int) -> Outcome:
        """Pick among the finalists of a search of `last` generations and measure the gain."""
        config, seed = self._config, self._config.seed
        generations = finalist_generations(self._validation, last)
        vectors = np.stack([self._means[generation] for generation in generations])
        selection = self._evaluate("selection", last, vectors, config.selection_samples(last))
        scores = selection.rewards.mean(axis=1)
        pick = int(scores.argmax())

        bucket = config.confirmation_samples(last)
        compared = selection.vectors[[0, pick] if pick else [0]]
        confirmation = self._evaluate("confirmation", last, compared, bucket)
        before = prompt_means(confirmation.rewards[0], bucket)
        after = prompt_means(confirmation.rewards[-1], bucket)
        if self._on_batch is not None:
            self._on_batch(self._total, self._total)
        return Outcome(
            vector=compared[-1],
            generation=generations[pick],
            generations=last,
            before=bootstrap_interval(before, seed),
            after=bootstrap_interval(after, seed),
            gain=bootstrap_interval(after - before, seed),
            finalists=tuple(
                Finalist(generation, vector, self._validation[generation], float(score))
                for generation, vector, score in zip(
                    generations, selection.vectors, scores, strict=True
                )
            ),
            history=tuple(self._history),
        )

    def _goes_on(self, generation: int) -> bool:
        """Whether another generation follows: one the journal began, or one in the budget."""
        config = self._config
        if self._journal.evaluation("generation", generation + 1) is not None:
            return True
        in_time = config.max_seconds is None or self._seconds < config.max_seconds
        return generation == 0 or (generation < config.generations and in_time)

    def _validate(self, generation: int) -> None:
        validated = list(self._means) if generation == 0 else [generation]
        means = np.stack([self._means[g] for g in validated])
        bucket = self._config.validation_samples()
        evaluated = self._evaluate("validation", generation, means, bucket)
        for g, rewards in zip(validated, evaluated.rewards, strict=True):
            self._validation[g] = float(rewards.mean())

    def _evaluate(
        self, role: str, generation: int, vectors: Floats, bucket: tuple[Sample, ...]
    ) -> Evaluation:
        prompts = self._config.all_prompts
        evaluated = self._runner.evaluate(role, generation, vectors, bucket, prompts)
        self._seconds += evaluated.seconds
        return evaluated

    def _count(self, images: int) -> None:
        self._images += images
        self._total = max(self._total, self._images)
        if self._on_batch is not None:
            self._on_batch(self._images, self._total)

    def _most_images(self, population: int) -> int:
        config = self._config
        held_out = len(config.validation_prompts) * config.images_per_prompt
        validations = 1 + -(-config.generations // config.validate_every)
        begun = 1 if self._space.warm else 0
        finalists = 2 + begun + min(VALIDATED_FINALISTS, max(validations - 2, 0))
        return (
            config.generations * population * config.bucket_size
            + (validations + begun + finalists + 2) * held_out
        )
