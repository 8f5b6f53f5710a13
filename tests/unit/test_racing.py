"""A race of finalists: who is beaten is drawn no more, and the winner is who would have won."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri import racing
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.racing import Drawn, race, round_sizes

from . import exact_run
from .exact_run import CONFIG, ExactEvaluator, Interrupted, rows, same

RACED = replace(CONFIG, validation_prompts=tuple(f"b {n}" for n in range(32)), generations=4)


def samples(prompts: int, images: int = 1) -> tuple[Sample, ...]:
    return tuple(Sample(p, 1000 * i + p) for i in range(images) for p in range(prompts))


def run_race(rewards, bucket):
    """The ranking, and the (role, entrants, samples) of each round."""
    rounds, generator = [], race(len(rewards), "selection", bucket)
    wanted, at = next(generator), 0
    while True:
        rounds.append((wanted.role, wanted.entrants, len(wanted.bucket)))
        assert wanted.bucket == bucket[at : at + len(wanted.bucket)]
        part = rewards[list(wanted.entrants), at : at + len(wanted.bucket)]
        at += len(wanted.bucket)
        try:
            wanted = generator.send(Drawn(part, wanted.bucket))
        except StopIteration as end:
            return end.value, rounds


def test_rounds_take_a_quarter_a_half_and_all():
    assert round_sizes(samples(64)) == [16, 32, 64]
    assert round_sizes(samples(32, 2)) == [16, 32, 64]
    # On fewer than eight prompts nobody is beaten.
    assert round_sizes(samples(16)) == [8, 16]
    assert round_sizes(samples(6, 4)) == [24]
    assert round_sizes(samples(3)) == [3]


def test_who_is_beaten_is_drawn_no_more():
    random = np.random.default_rng(0)
    prompts = random.standard_normal(64)
    rewards = prompts + 0.1 * random.standard_normal((4, 64))
    rewards += np.array([-0.5, 0.0, 0.03, -0.15])[:, None]
    ranking, rounds = run_race(rewards, samples(64))
    assert rounds[0] == ("selection", (0, 1, 2, 3), 16)
    assert rounds[1][:2] == ("selection 2", (1, 2))
    assert ranking.pick == int(rewards.mean(axis=1).argmax())
    # What is told of one that left can be compared: the luck of its prompts is taken out.
    assert abs(ranking.scores[0] - rewards[0].mean()) < 0.06
    np.testing.assert_allclose(ranking.scores[ranking.pick], rewards[ranking.pick].mean())


def test_one_that_beats_all_ends_the_race():
    rewards = np.random.default_rng(1).standard_normal((3, 64)) * 0.01
    rewards[2] += 1
    ranking, rounds = run_race(rewards, samples(64))
    assert ranking.pick == 2
    assert rounds == [("selection", (0, 1, 2), 16)]


def test_where_all_are_alike_everyone_is_drawn_to_the_end():
    rewards = np.tile(np.arange(64.0), (3, 1))
    ranking, rounds = run_race(rewards, samples(64))
    assert [entrants for _, entrants, _ in rounds] == [(0, 1, 2)] * 3
    assert ranking.pick == 0
    assert (ranking.scores == ranking.scores[0]).all()


def test_a_selection_of_an_earlier_version_is_read_as_one_round():
    rewards = np.random.default_rng(2).standard_normal((3, 64))
    generator = race(3, "selection", samples(64))
    next(generator)
    try:
        generator.send(Drawn(rewards, samples(64)))
    except StopIteration as end:
        ranking = end.value
    np.testing.assert_allclose(ranking.scores, rewards.mean(axis=1))
    assert ranking.pick == int(rewards.mean(axis=1).argmax())


def test_racing_hardly_ever_changes_who_wins_and_saves_images():
    random = np.random.default_rng(3)
    other, drawn, trials = 0, 0, 300
    for _ in range(trials):
        true = np.array([0.0, 0.8, 0.9, 1.0]) * random.uniform(0, 2)
        rewards = true[:, None] + 0.5 * random.standard_normal((4, 64))
        ranking, rounds = run_race(rewards, samples(64))
        other += ranking.pick != int(rewards.mean(axis=1).argmax())
        drawn += sum(len(entrants) * count for _, entrants, count in rounds)
    assert other / trials <= 0.03
    assert drawn / trials < 0.8 * 4 * 64


def test_a_run_stopped_between_rounds_ends_as_the_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "MARGIN", 1e9)  # else the first round decides
    whole = ExactEvaluator()
    outcome = exact_run.run(tmp_path / "whole.sqlite", whole, RACED)
    expected = rows(tmp_path / "whole.sqlite")
    compared = [(row[0], len(row[3])) for row in expected if row[0].startswith("selection")]
    assert compared == [("selection", 8), ("selection 2", 8), ("selection 3", 16)]
    for stop in range(len(whole.batches) - 14, len(whole.batches), 2):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(Interrupted):
            exact_run.run(path, ExactEvaluator(stop_at=stop), RACED)
        assert same(exact_run.run(path, ExactEvaluator(), RACED), outcome)
        assert rows(path) == expected


def test_a_finished_run_of_an_earlier_version_draws_nothing_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "ROUNDS", (1.0,))
    before = exact_run.run(tmp_path / "run.sqlite", config=RACED)
    monkeypatch.undo()
    again = ExactEvaluator()
    assert same(exact_run.run(tmp_path / "run.sqlite", again, RACED), before)
    assert again.batches == []
