"""Whether a slice ends its batch or leaves it, when somebody waits."""

import math

import pytest

from comfyui_calibri.calibri.yielding import YieldDecision


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def batch(decision, clock, images, steps, step_seconds, after):
    """A whole batch: `steps` steps, then decoding and scoring for `after` seconds."""
    decision.begin(images)
    for done in range(1, steps + 1):
        clock.now += step_seconds
        decision.step(done, steps)
    clock.now += after
    decision.end()


@pytest.fixture
def clock():
    return Clock()


def test_of_a_first_batch_only_its_steps_are_known(clock):
    decision = YieldDecision(clock)
    assert (decision.remaining(), decision.at_once()) == (0, False)
    decision.begin(4)
    assert (decision.remaining(), decision.at_once()) == (math.inf, True)
    clock.now += 0.5
    decision.step(1, 4)
    assert decision.remaining() == pytest.approx(3 * 0.5 + 4 * 0.5)
    clock.now += 1.5
    decision.step(2, 4)
    assert decision.at_once()


def test_a_long_batch_is_left_until_its_last_five_seconds(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=4, steps=10, step_seconds=1.0, after=2.0)
    decision.begin(4)
    left = []
    for done in range(1, 11):
        clock.now += 1.0
        decision.step(done, 10)
        left.append(decision.remaining())
    assert left == pytest.approx([11, 10, 9, 8, 7, 6, 5, 4, 3, 2])
    assert not decision.at_once()
    clock.now += 1.5
    assert decision.remaining() == pytest.approx(0.5)
    clock.now += 9
    assert decision.remaining() == 0


def test_decoding_and_scoring_count(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=4, steps=4, step_seconds=0.1, after=8.0)
    decision.begin(4)
    for done in range(1, 5):
        clock.now += 0.1
        decision.step(done, 4)
    assert decision.at_once()


def test_a_slower_machine_shows_within_the_batch(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=4, steps=10, step_seconds=0.1, after=0.0)
    decision.begin(4)
    clock.now += 0.1
    decision.step(1, 10)
    assert decision.remaining() == pytest.approx(0.9)
    clock.now += 2.0
    decision.step(2, 10)
    assert decision.remaining() == pytest.approx(16)
    assert decision.at_once()


def test_a_batch_of_another_size_is_scaled(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=2, steps=2, step_seconds=1.0, after=1.0)
    decision.begin(8)
    assert decision.remaining() == pytest.approx(12)


def test_a_batch_that_was_left_teaches_nothing(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=2, steps=2, step_seconds=1.0, after=1.0)
    decision.begin(2)
    clock.now += 50
    decision.begin(2)
    assert decision.remaining() == pytest.approx(3)


def test_one_slow_batch_among_many_changes_little(clock):
    decision = YieldDecision(clock)
    for after in (0.1, 60.0, 0.1):
        batch(decision, clock, images=2, steps=2, step_seconds=0.1, after=after)
    decision.begin(2)
    assert not decision.at_once()


def test_a_look_before_decoding_and_before_scoring_is_no_step(clock):
    decision = YieldDecision(clock)
    batch(decision, clock, images=2, steps=4, step_seconds=1.0, after=9.0)
    decision.begin(2)
    for done in range(1, 5):
        clock.now += 1.0
        decision.step(done, 4)
    decision.step(4, 4)
    assert decision.remaining() == pytest.approx(9)
    clock.now += 6.0
    decision.step(4, 4)
    assert decision.remaining() == pytest.approx(3)
    clock.now += 3.0
    decision.end()
    decision.begin(2)
    for done in range(1, 5):
        clock.now += 1.0
        decision.step(done, 4)
    assert decision.remaining() == pytest.approx(9)
