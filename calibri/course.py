"""The course of a calibration: which evaluation comes next, and what follows from its rewards.

One generation asks the search for candidates, wants them evaluated on a bucket of training prompts
with shared noise, and tells the search their mean rewards. Every `validate_every` generations the
distribution's mean is validated on held-out prompts. At the end `selection.py` picks among
finalists on new noise, and the gain is measured on noise that no choice has seen.

`Course.steps` is a generator that asks for evaluations and computes nothing that costs images, so
whoever answers it (`session.py`) may take the answers from the journal, or take days over one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .buckets import Buckets
from .configuration import RunConfig
from .constant_reward import alike
from .evaluation import Floats, Sample, training_bucket
from .journal import Evaluation
from .judging import judged_images, judgement, judges
from .outcome import Best, GenerationSummary, Outcome
from .pilot import PILOT_BUCKET, Pilot, expected_gain
from .racing import Drawn, Ranking, race
from .search import Search, create_search
from .selection import (
    START,
    VALIDATED_FINALISTS,
    Finalist,
    chosen_interval,
    finalist_generations,
    mean_interval,
    prompt_means,
)
from .stopping import Prospect, prospect

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace


@dataclass(frozen=True)
class Request:
    """An evaluation that the course needs: `vectors` [K, N] on the samples of `bucket`."""

    role: str
    generation: int
    vectors: Floats
    bucket: tuple[Sample, ...]
    judge: str = ""
    """Whose values are wanted in the place of the searched reward's (`judging.py`)."""


Steps = Generator[Request | GenerationSummary, Evaluation | None, Outcome]
"""Is sent the whole evaluation after a Request, None after a GenerationSummary; returns."""


class Course:
    """One run's course. `begun(generation)` says whether the journal has begun that generation.

    `concluded` may be set at any time: no generation is begun after that but the first. Only after
    the generation `stops_after` may it stop early, where its configuration says so.
    """

    def __init__(
        self,
        config: RunConfig,
        space: EnsembleSpace,
        begun: Callable[[int], bool],
        stops_after: float = 0,
    ) -> None:
        self._config = config
        self._space = space
        self._begun = begun
        self._stops_after = stops_after if config.stop_early else math.inf
        self.concluded = False
        self.pilot: Pilot | None = None
        """What the run is expected to cost and to gain, once its first generations are over."""
        self.stopped: Prospect | None = None
        """Why the search ended before its budget, where it did."""
        self.failed_judges: dict[str, str] = {}
        """Judges that could not score, and why."""
        self.generation = 0
        """The one that runs, or that the search ended with."""
        self.search_ended = False
        self._seconds = 0.0
        # The paper's profile has its bucket too.
        published = PILOT_BUCKET if config.profile == "paper" else 0
        self._buckets = Buckets(config.bucket_size or published)
        self._means: dict[int, Floats] = {0: space.identity}
        if space.warm:
            self._means[START] = space.start
        self._validation: dict[int, float] = {}
        self._prompt_means: dict[int, Floats] = {}
        self._best: Best | None = None
        self._best_of = 0
        self._history: list[GenerationSummary] = []
        self._search: Search = create_search(
            config.profile, space.start, space.lower, space.upper, config.seed, space.deviation
        )

    def steps(self) -> Steps:
        """The run, step by step. A generation's Request that is sent None ends the search."""
        config, search = self._config, self._search
        yield from self._validate(0)
        while self._goes_on(self.generation):
            self.generation += 1
            generation = self.generation
            size, drawn = self._buckets.size, self._buckets.drawn
            bucket = training_bucket(config.seed, generation, len(config.prompts), size, drawn)
            evaluated = yield Request("generation", generation, search.ask(), bucket)
            if evaluated is None:
                self.generation -= 1
                break
            self._seconds += evaluated.seconds
            if self._buckets.add(evaluated.rewards):
                self.pilot = self._pilot(evaluated)
            rewards = evaluated.rewards.mean(axis=1)
            sigma = search.sigma
            search.tell(rewards)
            self._means[generation] = search.mean.copy()
            if generation % config.validate_every == 0:
                yield from self._validate(generation)
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
                pilot=self.pilot,
            )
            warning = alike(config.reward, [*self._history, summary])
            self._history.append(replace(summary, warning=warning))
            yield self._history[-1]
            if self._is_over(generation):
                break
        self.search_ended = True
        if self.generation not in self._validation:
            yield from self._validate(self.generation)
        return (yield from self._finish(self.generation))

    def images(self) -> int:
        """Images of the whole run, at most: fewer where a time budget or a conclusion ends it."""
        config = self._config
        held_out = len(config.validation_prompts) * config.images_per_prompt
        last = self.generation if self.search_ended else config.generations
        validations = 1 + -(-last // config.validate_every)
        begun = 1 if self._space.warm else 0
        finalists = 2 + begun + min(VALIDATED_FINALISTS, max(validations - 2, 0))
        return (
            self._search.population * self._buckets.samples(last)
            + (validations + begun + finalists + 2) * held_out
            + judged_images(config)
        )

    def _pilot(self, latest: Evaluation) -> Pilot | None:
        """What the pilot says, of which `latest` was the last generation."""
        config, buckets = self._config, self._buckets
        if buckets.spread is None:
            return None
        images = self.images()
        low, high = expected_gain(
            buckets.spread,
            buckets.size,
            config.generations,
            self._search.population,
            len(self._space.names),
            config.profile,
        )
        # Before the first generation models are loaded, so the pace is the latest one's.
        seconds = images * latest.seconds / latest.rewards.size
        return Pilot(buckets.size, config.generations, images, seconds, low, high)

    def _is_over(self, generation: int) -> bool:
        """Whether the validations promise so little that the search ends before its budget."""
        too_soon = generation <= self._stops_after or generation not in self._validation
        if too_soon or self._begun(generation + 1):
            return False
        # A warm start's curve begins at its preset.
        begun = self._prompt_means.get(START, self._prompt_means[0])
        found = {g: means for g, means in self._prompt_means.items() if g > 0}
        expected = prospect({0: begun, **found}, self._config.generations)
        self.stopped = expected if expected is not None and expected.is_over else None
        return self.stopped is not None

    def best(self) -> Best | None:
        """The best validated mean so far, None before the first validation is whole."""
        if not self._validation:
            return None
        generation = min(self._validation, key=lambda g: (-self._validation[g], abs(g)))
        # Its interval widens with each mean that it was chosen from.
        if self._best is None or self._best_of != len(self._validation):
            self._best_of = len(self._validation)
            gains = self._prompt_means[generation] - self._prompt_means[0]
            self._best = Best(
                generation=generation,
                vector=self._means[generation],
                reward=self._validation[generation],
                plain=self._validation[0],
                gain=chosen_interval(gains, self._considered(), self._config.seed),
            )
        return self._best

    def _goes_on(self, generation: int) -> bool:
        """Whether another generation follows: one the journal began, or one in the budget."""
        config = self._config
        if self._begun(generation + 1):
            return True
        in_time = config.max_seconds is None or self._seconds < config.max_seconds
        in_budget = generation < config.generations and in_time
        return generation == 0 or (in_budget and not self.concluded)

    def _validate(self, generation: int) -> Generator[Request, Evaluation | None, None]:
        validated = list(self._means) if generation == 0 else [generation]
        means = np.stack([self._means[g] for g in validated])
        bucket = self._config.validation_samples()
        evaluated = yield from _ask(Request("validation", generation, means, bucket))
        self._seconds += evaluated.seconds
        for g, rewards in zip(validated, evaluated.rewards, strict=True):
            self._prompt_means[g] = prompt_means(rewards, bucket)
            self._validation[g] = float(rewards.mean())

    def _finish(self, last: int) -> Generator[Request, Evaluation | None, Outcome]:
        """Pick among the finalists of a search of `last` generations and measure the gain."""
        config = self._config
        generations = finalist_generations(self._validation, last)
        vectors = np.stack([self._means[generation] for generation in generations])
        ranking = yield from self._race(vectors, last)
        pick, role = ranking.pick, "confirmation"
        if pick == 0 and config.keep_anyway:
            pick, role = 1 + int(ranking.scores[1:].argmax()), "confirmation anyway"

        bucket = config.confirmation_samples(last)
        compared = vectors[[0, pick] if pick else [0]]
        confirmation = yield from _ask(Request(role, last, compared, bucket))
        before = prompt_means(confirmation.rewards[0], bucket)
        after = prompt_means(confirmation.rewards[-1], bucket)
        is_better = ranking.is_ahead and float(after.mean()) > float(before.mean())
        kept_anyway = config.keep_anyway and not is_better
        if not is_better and not kept_anyway:
            pick, after = 0, before
        judgements = []
        for judge in judges(config, last) if pick else ():
            request = Request(judge.role, last, confirmation.vectors, judge.bucket, judge.name)
            if (evaluated := (yield request)) is not None:
                judgements.append(judgement(judge, evaluated))
        return Outcome(
            vector=confirmation.vectors[1 if pick else 0],
            generation=generations[pick],
            generations=last,
            before=mean_interval(before),
            after=mean_interval(after),
            gain=chosen_interval(after - before, self._considered(), config.seed),
            finalists=tuple(
                Finalist(generation, vector, self._validation[generation], float(score))
                for generation, vector, score in zip(
                    generations, vectors, ranking.scores, strict=True
                )
            ),
            history=tuple(self._history),
            judgements=tuple(judgements),
            failed_judges=dict(self.failed_judges),
            kept_anyway=kept_anyway,
            pilot=self.pilot,
            stopped=self.stopped,
        )

    def _considered(self) -> Floats:
        """Gains [C, P] over the plain model, as validated, of all means that one is chosen from."""
        plain = self._prompt_means[0]
        return np.stack([self._prompt_means[g] - plain for g in self._validation])

    def _race(self, vectors: Floats, last: int) -> Generator[Request, Evaluation | None, Ranking]:
        """Compare the finalists [F, N] on samples that no choice has seen."""
        rounds = race(len(vectors), "selection", self._config.selection_samples(last))
        wanted = next(rounds)
        while True:
            entrants = vectors[list(wanted.entrants)]
            evaluated = yield from _ask(Request(wanted.role, last, entrants, wanted.bucket))
            try:
                wanted = rounds.send(Drawn(evaluated.rewards, evaluated.bucket))
            except StopIteration as end:
                ranking: Ranking = end.value
                return ranking


def _ask(request: Request) -> Generator[Request, Evaluation | None, Evaluation]:
    """An evaluation that there is no way around."""
    evaluated = yield request
    assert evaluated is not None
    return evaluated
