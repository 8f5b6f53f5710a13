"""The pilot: noise and spread from a table of rewards, the bucket size, what a run will cost."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.buckets import Buckets
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.pilot import (
    MOST_IMAGES,
    PILOT_GENERATIONS,
    Pilot,
    Spread,
    expected_gain,
    images_for_candidate,
    measure_spread,
)
from comfyui_calibri.calibri.session import Session

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, rows, run, same

AUTO = replace(CONFIG, bucket_size=0, generations=5)


def table(spread, noise, seed, candidates=16, images=16):
    random = np.random.default_rng(seed)
    return (
        spread * random.standard_normal((candidates, 1))
        + 5 * random.standard_normal((1, images))  # prompts differ more than all else
        + noise * random.standard_normal((candidates, images))
    )


def test_noise_and_spread_are_told_apart():
    found = [
        measure_spread([table(0.5, 1.0, 2 * seed), table(0.5, 1.0, 2 * seed + 1)])
        for seed in range(200)
    ]
    assert np.mean([f.noise for f in found]) == pytest.approx(1.0, abs=0.02)
    assert np.mean([f.square for f in found]) == pytest.approx(0.25, abs=0.02)
    assert np.std([f.square for f in found]) == pytest.approx(
        np.mean([f.error for f in found]), rel=0.2
    )


def test_one_image_for_a_candidate_says_nothing():
    assert measure_spread([table(0.5, 1.0, 0, images=1)] * 2) is None
    buckets = Buckets(1)
    buckets.add(table(0.5, 1.0, 0, images=1))
    assert buckets.add(table(0.5, 1.0, 1, images=1))
    assert (buckets.spread, buckets.size) == (None, 1)


@pytest.mark.parametrize(
    ("noise", "spread", "images"),
    [(0.0, 0.0, 4), (0.1, 0.5, 4), (3.0, 0.5, 4), (6.0, 0.5, 16), (12.0, 0.5, 64), (99.0, 0.5, 64)],
)
def test_more_noise_more_images(noise, spread, images):
    assert images_for_candidate(Spread(noise, spread**2, 0.0)) == images


def test_a_spread_that_noise_hides_gets_most_images():
    assert images_for_candidate(Spread(1.0, -0.5, 0.1)) == MOST_IMAGES


def test_the_chosen_size_holds_from_the_third_generation_on(tmp_path):
    run(tmp_path / "run.sqlite", config=AUTO)
    buckets = [row[3] for row in rows(tmp_path / "run.sqlite") if row[0] == "generation"]
    sizes = [len(bucket) for bucket in buckets]
    assert sizes[:PILOT_GENERATIONS] == [16, 16]
    assert len(set(sizes[PILOT_GENERATIONS:])) == 1
    assert sizes[-1] in (4, 8, 16, 32, 64)
    assert sizes[-1] != 16
    # Prompts are used equally often all the same.
    used = [sample.prompt for bucket in buckets for sample in bucket]
    counts = np.bincount(used, minlength=len(AUTO.prompts))
    assert counts.max() - counts.min() <= 1


def test_stopped_at_every_batch_it_chooses_as_the_uninterrupted_run(tmp_path):
    whole = ExactEvaluator(batch=48)
    outcome = run(tmp_path / "whole.sqlite", whole, AUTO)
    for stop in range(0, len(whole.batches), 3):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(Interrupted):
            run(path, ExactEvaluator(batch=48, stop_at=stop), AUTO)
        assert same(run(path, ExactEvaluator(batch=48), AUTO), outcome)
        assert rows(path) == rows(tmp_path / "whole.sqlite")


def test_a_run_says_what_it_will_cost_from_its_second_generation_on(tmp_path):
    heard = []
    with Journal.open(tmp_path / "run.sqlite") as journal:
        session = Session(AUTO, SPACE, ExactEvaluator(), journal, heard.append)
        while session.advance():
            pass
        pilot, images = session.pilot, session.images
    assert [summary.pilot is not None for summary in heard] == [False, True, True, True, True]
    assert session.outcome.pilot == heard[1].pilot == pilot
    assert pilot.seconds > 0
    assert 0 < pilot.low < pilot.high
    # At most: finalists that are beaten are not drawn to the end.
    assert images <= pilot.images < 1.2 * images
    assert f"draws {pilot.images:,} images at most" in pilot.sentence


def test_where_candidates_score_alike_it_promises_nothing():
    buckets = Buckets(0)
    buckets.add(np.ones((16, 16)))
    assert buckets.add(np.ones((16, 16)))
    assert buckets.size == 4
    assert expected_gain(buckets.spread, 4, 60, 16, 57, "default") == (0, 0)
    assert "gains nothing" in Pilot(4, 60, 5000, 60.0, 0.0, 0.0).sentence


def test_a_spread_that_noise_hides_is_no_certainty_of_nothing():
    for seed in range(100):
        spread = measure_spread([table(0.05, 1.0, 2 * seed), table(0.05, 1.0, 2 * seed + 1)])
        size = images_for_candidate(spread)
        low, high = expected_gain(spread, size, 60, 16, 57, "default")
        assert 0 <= low < high
        assert "score alike" not in Pilot(size, 60, 5000, 60.0, low, high).sentence


def test_a_gain_that_noise_may_hide_is_told_as_one():
    assert "+0.3 at most, perhaps nothing" in Pilot(16, 60, 5000, 60.0, 0.0, 0.3).sentence
    told = Pilot(1, 60, 5000, 7200.0, 0.1, 0.3).sentence
    assert "1 image for each candidate, in 2.0 hours, and likely gains +0.1 to +0.3" in told


def test_more_generations_promise_more_and_noise_less():
    clear, noisy = Spread(0.1, 0.25, 0.02), Spread(5.0, 0.25, 0.02)
    short = expected_gain(clear, 4, 20, 16, 57, "default")
    long = expected_gain(clear, 4, 100, 16, 57, "default")
    assert short[0] < long[0]
    assert short[1] < long[1]
    assert expected_gain(noisy, 4, 20, 16, 57, "default")[1] < short[1]
