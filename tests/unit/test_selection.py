"""Which means become finalists, and whether the published interval covers the truth."""

import numpy as np
import pytest

from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.selection import (
    bootstrap_interval,
    finalist_generations,
    prompt_means,
)


def test_finalists_are_the_identity_the_last_mean_and_the_best_validated():
    validation = {0: 9.0, 10: 1.0, 20: 5.0, 30: 4.0, 40: 2.0, 45: 0.0}
    assert finalist_generations(validation, 45) == [0, 20, 30, 45]
    assert finalist_generations({0: 1.0, 3: 0.0}, 3) == [0, 3]
    assert finalist_generations({0: 1.0, 1: 2.0, 2: 2.0, 3: 2.0, 4: 0.0}, 4) == [0, 1, 2, 4]


def test_images_of_a_prompt_are_averaged_first():
    bucket = [Sample(3, 0), Sample(1, 1), Sample(3, 2)]
    assert prompt_means(np.array([1.0, 5.0, 2.0]), bucket).tolist() == [5.0, 1.5]


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        # Skewed, like differences of rewards.
        interval = bootstrap_interval(random.exponential(size=48), seed=trial)
        assert interval.low <= interval.mean <= interval.high
        covered += interval.low <= 1.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairing_takes_out_what_prompts_have_in_common():
    random = np.random.default_rng(1)
    prompts = 5 * random.standard_normal(64)
    before = prompts + 0.1 * random.standard_normal(64)
    after = prompts + 0.2 + 0.1 * random.standard_normal(64)
    paired = bootstrap_interval(after - before, seed=0)
    assert 0.1 < paired.low < 0.2 < paired.high < 0.3
    alone = bootstrap_interval(after, seed=0)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


def test_the_interval_is_seeded():
    values = np.random.default_rng(2).standard_normal(16)
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1)
    assert bootstrap_interval(values, 1) != bootstrap_interval(values, 2)


def test_one_prompt_has_no_interval():
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval(np.ones(1), 0)
