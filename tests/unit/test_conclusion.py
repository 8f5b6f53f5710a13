"""A search that is ended early, and one that goes on after all."""

import threading
from dataclasses import replace

import pytest

from comfyui_calibri.calibri.journal import Journal

from .exact_run import CONFIG, ExactEvaluator, run, same
from .sessions import FIVE, begin, to_the_end, until


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        yield journal


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("at", [("generation", 2), ("validation", 2)])
def test_a_concluded_search_ends_with_its_generation(journal, tmp_path, at, reopened):
    session = begin(journal)
    until(session, *at)
    session.advance()
    session.conclude()
    if reopened:
        session = begin(journal)
    concluded = to_the_end(session)
    two = replace(CONFIG, generations=2)
    assert concluded.generations == 2
    assert same(concluded, run(tmp_path / "two.sqlite", config=two))
    assert same(to_the_end(begin(journal)), concluded)


def test_a_generation_that_has_not_begun_is_left_out(journal):
    session = begin(journal)
    until(session, "generation", 3)
    session.conclude()
    assert to_the_end(session).generations == 2
    assert {e.generation for e in journal.evaluations("generation")} == {1, 2}


def test_the_first_generation_is_never_left_out(journal):
    session = begin(journal)
    session.conclude()
    assert to_the_end(session).generations == 1


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("phase", ["generation", "validation", "selection", "confirmation", "done"])
def test_a_conclusion_taken_back_leaves_no_trace(journal, tmp_path, phase, reopened):
    session = begin(journal)
    until(session, "generation", 3)
    session.advance()
    session.conclude()
    while session.phase != phase:
        session.advance()
    if reopened:
        session = begin(journal)
    session.go_on()
    if reopened:
        session = begin(journal)
    assert session.outcome is None
    assert same(to_the_end(session), run(tmp_path / "whole.sqlite", config=FIVE))
    kinds = [event.kind for event in journal.events()]
    assert kinds.count("concluded") == kinds.count("went on") == 1


@pytest.mark.parametrize(
    ("more", "generations"),
    [
        ({"generations": 6}, 6),
        ({"max_seconds": None}, 5),
        ({"max_seconds": 9e8}, 2),
        ({"generations": 4}, 2),
        ({}, 2),
    ],
)
def test_a_larger_budget_takes_a_conclusion_back(journal, tmp_path, more, generations):
    config = replace(FIVE, max_seconds=9e9)
    session = begin(journal, config=config)
    until(session, "generation", 2)
    session.advance()
    session.conclude()
    to_the_end(session)
    outcome = to_the_end(begin(journal, config=replace(config, **more)))
    assert same(
        outcome, run(tmp_path / "whole.sqlite", config=replace(CONFIG, generations=generations))
    )


def test_a_conclusion_may_be_made_twice(journal):
    session = begin(journal)
    until(session, "generation", 3)
    session.conclude()
    first = to_the_end(session)
    session.go_on()
    session.conclude()
    evaluator = session.evaluator = ExactEvaluator()
    assert same(to_the_end(session), first)
    assert evaluator.batches == []


def test_going_on_without_a_conclusion_does_nothing(journal):
    session = begin(journal)
    until(session, "generation", 2)
    session.go_on()
    assert (session.phase, session.generation) == ("generation", 2)
    assert [event.kind for event in journal.events()] == ["started"]


def test_another_thread_may_conclude_while_a_batch_runs(tmp_path):
    class Waits(ExactEvaluator):
        def run(self, *arguments):
            if len(self.batches) == 6:
                running.set()
                assert concluded.wait(10)
            return super().run(*arguments)

    running, concluded = threading.Event(), threading.Event()
    with Journal.open(tmp_path / "run.sqlite") as journal:
        session = begin(journal, Waits())
        thread = threading.Thread(target=to_the_end, args=(session,))
        thread.start()
        assert running.wait(10)
        session.conclude()
        concluded.set()
        thread.join()
        assert session.outcome.generations == 2
