"""A session advances batch by batch, rests, fails and goes on; it ends as an undisturbed run."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from comfyui_calibri.calibri import session as session_module
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.selection import chosen_interval, prompt_means
from comfyui_calibri.calibri.yielding import YieldedError

from .exact_run import SPACE, ExactEvaluator, Interrupted, rows, run, same
from .sessions import FIVE, begin, to_the_end, until


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        yield journal


def test_one_advance_is_one_batch(journal, tmp_path):
    evaluator = ExactEvaluator()
    session = begin(journal, evaluator)
    assert evaluator.batches == []
    for batches in count(1):
        going_on = session.advance()
        assert len(evaluator.batches) == batches
        assert session.images == sum(evaluator.batches)
        if not going_on:
            break
    assert same(session.outcome, run(tmp_path / "whole.sqlite", config=FIVE))
    assert (session.phase, session.advance()) == ("done", False)
    assert len(evaluator.batches) == batches


def test_it_says_where_it_is(journal):
    session = begin(journal)
    seen = {}
    while True:
        seen.setdefault((session.phase, session.generation), session.images)
        assert 0 <= session.images <= session.total
        if not session.advance():
            break
    assert list(seen) == [
        ("validation", 0),
        ("generation", 1),
        ("generation", 2),
        ("validation", 2),
        ("generation", 3),
        ("generation", 4),
        ("validation", 4),
        ("generation", 5),
        ("validation", 5),
        ("selection", 5),
        ("confirmation", 5),
    ]
    assert seen["generation", 1] == 3
    assert seen["generation", 2] == 3 + 16 * 3


@pytest.mark.parametrize("every", [1, 3])
def test_whatever_an_evaluator_raises_the_same_batch_is_next(journal, tmp_path, every):
    class Unreliable(ExactEvaluator):
        calls = 0

        def run(self, *arguments):
            self.calls += 1
            if self.calls % (every + 1) == 0:
                raise errors[self.calls % len(errors)]
            return super().run(*arguments)

    errors = [Interrupted(), MemoryError(), KeyboardInterrupt(), RuntimeError("the reward is gone")]
    session = begin(journal, Unreliable())
    failed = 0
    while session.outcome is None:
        before = session.images
        try:
            session.advance()
        except (Interrupted, MemoryError, KeyboardInterrupt, RuntimeError):
            failed += 1
            assert session.images == before
    assert failed > 5
    assert same(session.outcome, run(tmp_path / "whole.sqlite", config=FIVE))
    assert rows(journal.path) == rows(tmp_path / "whole.sqlite")
    assert sum(event.kind == "interrupted" for event in journal.events()) == failed


def test_a_callback_that_raises_loses_nothing_and_is_called_again(journal, tmp_path):
    heard, refused = [], set()

    def refuse_once(key):
        if key not in refused:
            refused.add(key)
            raise Interrupted

    def on_generation(summary):
        refuse_once(summary.generation)
        heard.append(summary.generation)

    def on_batch(images, total):
        refuse_once((images, total))

    evaluator = ExactEvaluator()
    session = begin(journal, evaluator, on_generation=on_generation, on_batch=on_batch)
    while session.outcome is None or (session.total, session.total) not in refused:
        try:
            session.advance()
        except Interrupted:
            continue
    assert not session.advance()
    assert heard == [1, 2, 3, 4, 5]
    whole = ExactEvaluator()
    assert same(session.outcome, run(tmp_path / "whole.sqlite", whole, FIVE))
    assert evaluator.batches == whole.batches


def test_an_evaluator_may_be_made_anew(journal, tmp_path):
    session = begin(journal, ExactEvaluator(stop_at=0))
    used = []
    while session.outcome is None:
        session.evaluator = ExactEvaluator()
        session.advance()
        used += session.evaluator.batches
    whole = ExactEvaluator()
    assert same(session.outcome, run(tmp_path / "whole.sqlite", whole, FIVE))
    assert used == whole.batches


def test_a_new_session_stands_where_the_journal_ends(journal):
    session = begin(journal)
    until(session, "generation", 4)
    again = begin(journal)
    for name in ("phase", "generation", "images", "total", "outcome"):
        assert getattr(again, name) == getattr(session, name)
    assert again.best().generation == session.best().generation
    assert (again.best().vector == session.best().vector).all()


def test_what_a_resumed_session_tells(journal):
    until(begin(journal), "generation", 3)
    summaries, counts = [], []
    session = begin(
        journal, on_generation=summaries.append, on_batch=lambda *given: counts.append(given)
    )
    images = session.images
    to_the_end(session)
    assert [summary.generation for summary in summaries] == [3, 4, 5]
    assert counts[0][0] > images
    assert counts[-1][0] == counts[-1][1]


def test_the_best_is_the_best_validated_mean(journal):
    session = begin(journal)
    assert session.best() is None
    session.advance()
    assert session.best().generation == 0
    assert (session.best().vector == SPACE.identity).all()
    assert (session.best().gain.low, session.best().gain.high) == (0, 0)
    to_the_end(session)
    validated = {e.generation: e for e in journal.evaluations("validation")}
    rewards = {generation: e.rewards[0].mean() for generation, e in validated.items()}
    best = session.best()
    assert best.generation == max(rewards, key=rewards.get) > 0
    assert (best.reward, best.plain) == (rewards[best.generation], rewards[0])
    per_prompt = {g: prompt_means(e.rewards[0], e.bucket) for g, e in validated.items()}
    gains = {g: means - per_prompt[0] for g, means in per_prompt.items()}
    considered = np.stack(list(gains.values()))
    assert best.gain == chosen_interval(gains[best.generation], considered, FIVE.seed)
    assert (best.vector == validated[best.generation].vectors[0]).all()


class Clock:
    """Stands for the `time` of a session; each batch takes one second."""

    now = 0.0

    def monotonic(self):
        return self.now


class Timed(ExactEvaluator):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def plan(self, *arguments):
        self.clock.now += 50  # the model is loaded
        return super().plan(*arguments)

    def run(self, *arguments):
        self.clock.now += 1
        return super().run(*arguments)


def test_rests_and_callbacks_are_not_counted(journal, monkeypatch):
    monkeypatch.setattr(session_module, "time", clock := Clock())

    def draw(*anything):
        clock.now += 100

    session = begin(
        journal,
        Timed(clock),
        # After the first validation and generation it is at second 5.
        replace(FIVE, max_seconds=6.0),
        on_generation=draw,
        on_batch=draw,
    )
    while session.advance():
        clock.now += 3 * 24 * 3600
    assert session.outcome.generations == 2
    seconds = {(e.role, e.generation): e.seconds for e in journal.evaluations()}
    assert seconds["validation", 0] == 1
    assert seconds["generation", 1] == seconds["generation", 2] == 4


def test_the_journal_holds_all_that_a_run_is(journal):
    sampling = {"steps": 4, "model": "fingerprint", "sigmas": [1.0, 0.5, 0.0]}
    versions = {"ComfyUI": "0.33.0", "device": "cpu"}
    session = begin(
        journal, config=replace(FIVE, sampling=sampling, max_seconds=9e9), versions=versions
    )
    to_the_end(session)
    config = journal.config()
    assert config["prompts"] == list(FIVE.prompts)
    assert config["validation_prompts"] == list(FIVE.validation_prompts)
    assert config["sampling"] == sampling
    assert config["coefficients"] == list(SPACE.names)
    assert {"seed", "profile", "bucket_size", "validate_every", "reward", "family"} <= set(config)
    started, *_, finished = journal.events()
    assert (started.kind, finished.kind) == ("started", "finished")
    assert started.detail["generations"] == 5
    assert started.detail["max_seconds"] == 9e9
    kept = started.detail["versions"]
    assert versions.items() <= kept.items()
    assert {"python", "numpy", "cma", "torch", "comfyui-calibri"} <= set(kept)
    assert all(kept.values())
    evaluations = journal.evaluations()
    assert {e.role for e in evaluations} == {
        *("validation", "generation", "selection", "confirmation")
    }
    for evaluation in evaluations:
        assert evaluation.seconds > 0
        assert np.isfinite(evaluation.rewards).all()
        assert evaluation.rewards.shape == (len(evaluation.vectors), len(evaluation.bucket))
    with closing(sqlite3.connect(journal.path)) as database:
        batches = database.execute("SELECT batch FROM results ORDER BY id").fetchall()
    assert [len(json.loads(batch)) for (batch,) in batches] == session.evaluator.batches


def test_batches_that_were_given_up_for_others_leave_no_events(journal):
    class Yielding(ExactEvaluator):
        def run(self, *batch):
            raise YieldedError

    session = begin(journal, Yielding())
    for _ in range(3):
        with pytest.raises(YieldedError):
            session.advance()
    assert [event.kind for event in journal.events()] == ["started"]


def test_the_best_so_far_is_that_of_a_session_opened_anew(journal):
    class Near(ExactEvaluator):
        """Is soon at its best."""

        def reward(self, vector, sample):
            noise = np.random.default_rng(sample.seed).standard_normal(len(vector))
            return -((vector - 1.05) ** 2).sum() + 0.02 * noise @ vector

    config = replace(FIVE, generations=12, validation_prompts=tuple("qrstuvwxyz"))
    session = session_module.Session(config, SPACE, Near(batch=100), journal)
    kept = set()
    while session.advance():
        best = session.best()
        again = session_module.Session(config, SPACE, Near(), journal).best()
        assert (again.generation, again.gain) == (best.generation, best.gain)
        kept.add((best.generation, best.gain))
    # Its interval changed while it stayed the best.
    assert len(kept) > len({generation for generation, _ in kept})
