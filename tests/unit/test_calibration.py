"""The loop over the journal: budgets, callbacks, what it recommends, and bad input."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.calibration import RunConfigError
from comfyui_calibri.calibri.configuration import differences, run_record
from comfyui_calibri.calibri.evaluation import (
    BatchTooLargeError,
    RewardError,
    noise_seed,
    training_bucket,
)
from comfyui_calibri.calibri.journal import Journal, JournalError

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, rows, run, same


def test_a_finished_run_is_read_back_without_new_images(tmp_path):
    path = tmp_path / "run.sqlite"
    outcome = run(path)
    again = ExactEvaluator()
    assert same(run(path, again), outcome)
    assert again.batches == []


def test_more_generations_continue_a_finished_run(tmp_path):
    run(tmp_path / "grown.sqlite", config=replace(CONFIG, generations=2))
    longer = run(tmp_path / "grown.sqlite", config=replace(CONFIG, generations=5))
    assert longer.generations == 5
    assert same(longer, run(tmp_path / "whole.sqlite", config=replace(CONFIG, generations=5)))


def test_fewer_generations_than_the_journal_holds_change_nothing(tmp_path):
    path = tmp_path / "run.sqlite"
    outcome = run(path)
    assert same(run(path, config=replace(CONFIG, generations=1)), outcome)


def test_time_budget_ends_after_a_generation_with_a_valid_outcome(tmp_path):
    config = replace(CONFIG, generations=10_000, max_seconds=0.05)
    counts = []
    first = run(tmp_path / "run.sqlite", config=config, on_batch=lambda *c: counts.append(c))
    assert 1 <= first.generations < 1000
    assert counts[-1][0] == counts[-1][1]
    assert len(first.finalists) >= 2
    again = ExactEvaluator()
    assert same(run(tmp_path / "run.sqlite", again, config), first)
    assert again.batches == []
    once = run(tmp_path / "once.sqlite", config=replace(config, max_seconds=0.0))
    assert once.generations == 1


def test_time_budget_counts_earlier_sessions(tmp_path):
    config = replace(CONFIG, generations=500, max_seconds=0.1)
    path = tmp_path / "run.sqlite"
    for _ in range(1000):
        try:
            run(path, ExactEvaluator(stop_at=40), config)
            break
        except Interrupted:
            continue
    with Journal.read(path) as journal:
        *before, _ = [
            e.seconds for e in journal.evaluations() if e.role in ("generation", "validation")
        ]
    assert sum(before) < 0.2


def test_callbacks_hear_generations_and_images(tmp_path):
    summaries, counts = [], []
    run(
        tmp_path / "run.sqlite",
        on_generation=summaries.append,
        on_batch=lambda done, total: counts.append((done, total)),
    )
    assert [s.generation for s in summaries] == [1, 2, 3]
    assert [s.validation is not None for s in summaries] == [False, True, False]
    assert all(s.worst <= s.mean <= s.best and s.std > 0 and s.sigma > 0 for s in summaries)
    assert all(done <= total for done, total in counts)
    assert counts[-1][0] == counts[-1][1]
    evaluated = sum(len(r[4]) // 8 for r in rows(tmp_path / "run.sqlite"))
    assert counts[-2] == (evaluated, counts[-1][1])


def test_the_gain_is_positive_and_the_pick_a_finalist(tmp_path):
    config = replace(CONFIG, generations=30, validation_prompts=tuple("uvwxyz"))
    outcome = run(tmp_path / "run.sqlite", config=config)
    assert outcome.gain.low > 0
    assert outcome.generation in {f.generation for f in outcome.finalists}
    assert {0, 30} <= {f.generation for f in outcome.finalists}
    assert outcome.after.mean - outcome.before.mean == pytest.approx(outcome.gain.mean)


def test_where_nothing_helps_the_identity_is_recommended(tmp_path):
    class IdentityIsBest(ExactEvaluator):
        def reward(self, vector, sample):
            return -((vector - 1) ** 2).sum()

    outcome = run(tmp_path / "run.sqlite", IdentityIsBest())
    assert outcome.generation == 0
    assert (outcome.vector == SPACE.identity).all()
    assert (outcome.gain.mean, outcome.gain.low, outcome.gain.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda good: np.where(np.arange(len(good)) == 1, np.nan, good), "returned nan for the"),
        (lambda good: np.where(np.arange(len(good)) == 1, np.inf, good), "returned inf for the"),
        (lambda good: good[:-1], r"shape \(2,\) for 3 images"),
        (lambda good: good[:, None], r"shape \(3, 1\) for 3 images"),
    ],
)
def test_unusable_rewards_are_one_sentence_and_the_run_goes_on(tmp_path, returned, message):
    class Broken(ExactEvaluator):
        def run(self, *arguments):
            return returned(super().run(*arguments))

    path = tmp_path / "run.sqlite"
    with pytest.raises(RewardError, match=message):
        run(path, Broken())
    assert same(run(path), run(tmp_path / "whole.sqlite"))


def test_changed_settings_are_named(tmp_path):
    path = tmp_path / "run.sqlite"
    with pytest.raises(Interrupted):
        run(path, ExactEvaluator(stop_at=3))
    changed = replace(CONFIG, reward="other", sampling={"steps": 9})
    with pytest.raises(JournalError) as raised:
        run(path, config=changed)
    text = str(raised.value)
    assert 'reward ("test", now "other")' in text
    assert "sampling.steps (4, now 9)" in text
    assert "prompts" not in text
    assert "another name" in text


def test_what_changed_is_known_as_data(tmp_path):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        assert differences(journal, CONFIG, SPACE) == []
        journal.set_config(run_record(CONFIG, SPACE))
        assert differences(journal, replace(CONFIG, generations=9, max_seconds=1.0), SPACE) == []
        changed = replace(
            CONFIG,
            prompts=(*CONFIG.prompts[:-1], "another"),
            validation_prompts=("x", "y"),
            sampling={"steps": 4, "model": "f00"},
        )
        assert differences(journal, changed, SPACE) == [
            'prompts (entry 7 of 7 was "a 6", now "another")',
            'sampling.model (null, now "f00")',
            "validation_prompts (3 entries, now 2 entries)",
        ]


def test_only_a_run_that_is_accepted_begins(tmp_path):
    told = []

    class Watched(ExactEvaluator):
        def run(self, *asked):
            told.append("drawn")
            return super().run(*asked)

    run(tmp_path / "run.sqlite", Watched(), begun=lambda: told.append("begun"))
    assert told[0] == "begun"
    assert told.count("begun") == 1
    with pytest.raises(JournalError):
        run(
            tmp_path / "run.sqlite",
            config=replace(CONFIG, seed=12),
            begun=lambda: told.append("begun"),
        )
    assert told.count("begun") == 1


def test_one_image_too_large_comes_through(tmp_path):
    with pytest.raises(BatchTooLargeError):
        run(tmp_path / "run.sqlite", ExactEvaluator(memory=0))


def test_a_plan_that_leaves_images_out_is_refused(tmp_path):
    class Forgetful(ExactEvaluator):
        def plan(self, candidates, bucket):
            return super().plan(candidates, bucket)[1:]

    with pytest.raises(ValueError, match="every pair exactly once"):
        run(tmp_path / "run.sqlite", Forgetful(batch=1))


def test_noise_does_not_depend_on_batches(tmp_path):
    run(tmp_path / "one.sqlite", ExactEvaluator(batch=1))
    run(tmp_path / "many.sqlite", ExactEvaluator(batch=64))
    one, many = rows(tmp_path / "one.sqlite"), rows(tmp_path / "many.sqlite")
    assert [r[3] for r in one] == [r[3] for r in many]


def test_noise_is_its_own_in_every_role_and_generation(tmp_path):
    run(tmp_path / "run.sqlite", config=replace(CONFIG, images_per_prompt=2))
    seeds = {}
    for role, generation, _, bucket, _ in rows(tmp_path / "run.sqlite"):
        held_out = {CONFIG.all_prompts[s.prompt] in CONFIG.validation_prompts for s in bucket}
        assert held_out == {role != "generation"}
        assert len({sample.seed for sample in bucket}) == len(bucket)
        seeds[role, generation] = {sample.seed for sample in bucket}
    assert seeds["validation", 0] == seeds["validation", 2] == seeds["validation", 3]
    apart = [seeds[key] for key in seeds if key not in {("validation", 2), ("validation", 3)}]
    assert len(set.union(*apart)) == sum(map(len, apart))


def test_noise_seeds_are_fixed_for_all_time():
    assert noise_seed(1, "generation", 2, 3, 4) == 4890678604950685218
    assert all(0 <= noise_seed(1, "generation", g, 0, 0) < 2**63 for g in range(100))


def test_buckets_use_every_prompt_equally_often():
    for size in (3, 7, 20):
        used = [s.prompt for g in range(1, 15) for s in training_bucket(5, g, 7, size)]
        assert len(used) == 14 * size
        assert sorted(used[: 7 * (len(used) // 7)]) == sorted([*range(7)] * (len(used) // 7))
    large = training_bucket(5, 1, 7, 20)
    assert len({sample.seed for sample in large}) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generations": 0}, "generations is 0"),
        ({"prompts": ()}, "no prompts to search on"),
        ({"validation_prompts": ("x",)}, "at least two"),
        ({"validation_prompts": ("x", "a 3")}, "'a 3'"),
    ],
)
def test_unusable_configurations_say_what_to_do(change, message):
    with pytest.raises(RunConfigError, match=message):
        replace(CONFIG, **change)
