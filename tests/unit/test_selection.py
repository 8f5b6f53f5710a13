"""Which means become finalists, and whether the published interval covers the truth."""

import numpy as np
import pytest

from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.selection import (
    chosen_interval,
    finalist_generations,
    mean_interval,
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


@pytest.mark.parametrize("prompts", [4, 8, 16, 32, 64])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(prompts):
    random = np.random.default_rng(prompts)
    # Differences of scores that are right or wrong: of few values, and often equal.
    values = (random.random((2000, prompts)) < 0.5) * 1.0 - (random.random((2000, prompts)) < 0.4)
    found = [mean_interval(row) for row in values]
    assert all(interval.low <= interval.mean <= interval.high for interval in found)
    covered = np.mean([interval.low <= 0.1 <= interval.high for interval in found])
    assert (0.89 if prompts == 4 else 0.93) <= covered <= 0.975


def chosen(random, prompts, gain, trials=200, candidates=6):
    """Of trials in which a search is believed: intervals as they are, widened, and true gains.

    Candidates suit some prompts by chance, whatever the noise; the best on one noise is measured on
    another. Without a gain all are like the plain model.
    """
    gains = np.linspace(gain / candidates, gain, candidates)
    for _ in range(trials):
        suits = gains[:, None] + 0.5 * random.standard_normal((candidates, prompts))
        first, second = (
            suits + 0.3 * random.standard_normal((candidates, prompts)) for _ in range(2)
        )
        pick = int(first.mean(axis=1).argmax())
        if first[pick].mean() > 0:
            values = second[pick]
            found = mean_interval(values), chosen_interval(values, first, 0)
            yield *found, mean_interval(values[::2]), gains[pick]


@pytest.mark.parametrize("gain", [0.0, 0.4])
@pytest.mark.parametrize("prompts", [8, 32])
def test_what_was_chosen_is_not_better_than_its_interval_says(prompts, gain):
    found = list(chosen(np.random.default_rng(1), prompts, gain))
    naive, widened = (np.mean([trial[kind].low > trial[3] for trial in found]) for kind in (0, 1))
    assert widened <= 0.025 + 0.015
    if not gain:
        assert naive > 0.05  # what the correction is for
    assert np.mean([wide.low <= true <= wide.high for _, wide, _, true in found]) >= 0.95
    # No wider than with half of the prompts, kept from the choice.
    wide, half = (np.mean([t[kind].high - t[kind].low for t in found]) for kind in (1, 2))
    assert wide < half


def test_one_candidate_needs_no_correction():
    values = np.random.default_rng(3).standard_normal(20)
    assert chosen_interval(values, values[None], 0) == mean_interval(values)
    with_plain = np.stack([np.zeros(20), values])
    assert chosen_interval(values, with_plain, 0) == mean_interval(values)
    twice = chosen_interval(values, np.stack([values, 2 * values]), 0)
    assert twice.high - twice.low < 1.03 * (2 * (twice.mean - mean_interval(values).low))


def test_equal_values_have_an_interval_of_no_width():
    same = np.full(8, 0.25)
    assert mean_interval(same) == chosen_interval(same, np.stack([same, same]), 0)
    assert (mean_interval(same).low, mean_interval(same).high) == (0.25, 0.25)


def test_pairing_takes_out_what_prompts_have_in_common():
    random = np.random.default_rng(1)
    prompts = 5 * random.standard_normal(64)
    before = prompts + 0.1 * random.standard_normal(64)
    after = prompts + 0.2 + 0.1 * random.standard_normal(64)
    paired = mean_interval(after - before)
    assert 0.1 < paired.low < 0.2 < paired.high < 0.3
    alone = mean_interval(after)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


def test_the_correction_is_seeded():
    values = np.random.default_rng(2).standard_normal((5, 16))
    assert chosen_interval(values[0], values, 1) == chosen_interval(values[0], values, 1)
    assert chosen_interval(values[0], values, 1) != chosen_interval(values[0], values, 2)


def test_one_prompt_has_no_interval():
    with pytest.raises(ValueError, match="at least two"):
        mean_interval(np.ones(1))
