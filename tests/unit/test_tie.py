"""What it takes to be recommended: a tie is the plain model's."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.continuation import best_mean
from comfyui_calibri.calibri.course import Course, Request
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.journal import Evaluation, Journal
from comfyui_calibri.calibri.racing import Drawn, race

from .exact_run import CONFIG, SPACE, ExactEvaluator, run

HELD_OUT = tuple(f"held out {n}" for n in range(16))
ENDS = replace(CONFIG, validation_prompts=HELD_OUT, generations=4)


def without_gain(seed):
    """The outcome of a search where no vector is better than another on average."""
    prompts = tuple(f"a {n}" for n in range(64))
    config = replace(
        CONFIG, prompts=prompts, validation_prompts=HELD_OUT, generations=20, seed=seed
    )
    random = np.random.default_rng(seed)
    suits = random.standard_normal((len(config.all_prompts), len(SPACE.names)))
    steps, answer = Course(config, SPACE, lambda generation: False).steps(), None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = None
        if isinstance(wanted, Request):
            rewards = (wanted.vectors - 1) @ suits[[s.prompt for s in wanted.bucket]].T
            rewards += random.standard_normal(rewards.shape)
            answer = Evaluation(
                0, wanted.role, wanted.generation, wanted.vectors, wanted.bucket, (), rewards, 0.0
            )


def test_where_there_is_no_gain_most_runs_recommend_the_plain_model():
    outcomes = [without_gain(seed) for seed in range(40)]
    recommended = [outcome for outcome in outcomes if outcome.generation != 0]
    assert len(recommended) / len(outcomes) < 0.35
    assert all(outcome.gain.mean > 0 for outcome in recommended)
    assert all(
        (outcome.gain.mean, outcome.after) == (0, outcome.before)
        for outcome in outcomes
        if outcome.generation == 0
    )


@pytest.mark.parametrize(("lead", "ahead"), [(0.1, False), (0.4, True)])
def test_a_lead_of_less_than_its_error_is_none(lead, ahead):
    bucket = tuple(Sample(prompt, prompt) for prompt in range(16))
    noise = np.tile([1.0, -1.0], 8)  # its mean has an error of 0.26
    rounds = race(2, "selection", bucket)
    rewards = np.stack([np.zeros(16), lead + noise])
    next(rounds)
    with pytest.raises(StopIteration) as ended:  # told of all samples at once
        rounds.send(Drawn(rewards, bucket))
    ranking = ended.value.value
    assert (ranking.pick, ranking.is_ahead) == (1, ahead)


class Disappoints(ExactEvaluator):
    """Likes what the search finds, until it is confirmed."""

    def reward(self, vector, sample):
        found = super().reward(vector, sample)
        return found if sample.seed not in confirmed else -found


confirmed = {sample.seed for sample in ENDS.confirmation_samples(4)}


def test_what_the_confirmation_does_not_bear_out_is_not_recommended(tmp_path):
    path = tmp_path / "run.sqlite"
    assert run(tmp_path / "true.sqlite", config=ENDS).generation != 0
    outcome = run(path, Disappoints(), ENDS)
    assert outcome.generation == 0
    assert (outcome.vector == SPACE.identity).all()
    with Journal.read(path) as journal:
        assert best_mean(journal)[0] == 0
    kept = run(path, Disappoints(stop_at=0), replace(ENDS, keep_anyway=True))
    assert kept.kept_anyway
    assert kept.gain.mean < 0
    with Journal.read(path) as journal:
        generation, vector = best_mean(journal)
    assert generation == kept.generation != 0
    assert (vector == kept.vector).all()
