"""The loop of a training: what it keeps, what stops it, and that it goes on to the same bits."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.training import state as state_module
from comfyui_calibri.training.draws import generator, noise
from comfyui_calibri.training.loop import Group, Loop, Pace
from comfyui_calibri.training.schedule import LearningRate
from comfyui_calibri.training.state import StateFile, TrainingError
from comfyui_calibri.training.weights import copied, instead

CPU = torch.device("cpu")


class Line:
    """y = a · x, learnt from noise; `touched` is a buffer that losses change."""

    def __init__(
        self,
        folder: Path | None,
        steps: int = 8,
        about: str = "line",
        also: Curve | None = None,
        **pace: int,
    ):
        self.parameter = nn.Parameter(torch.zeros(3))
        self.touched = torch.zeros(1)
        self.asked: list[tuple[int, int]] = []
        rate = LearningRate(0.1, steps).at
        self.group = Group("line", {"a": self.parameter}, rate, averaged=True)
        self.loop = Loop(
            Pace(steps, ema=0.5, save_every=3, **pace),
            [self.group],
            StateFile(folder, {"about": about}),
            CPU,
            {"touched": self.touched},
            also,
        )
        self.bad = -1  # the step whose loss is no number

    def part(self, step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        self.asked.append((step, part))
        self.touched += 1
        x = noise((4, 3), generator(7, "line", step, part))
        loss = (x * (self.parameter - 2)).square().mean()
        loss = loss * math.nan if step == self.bad else loss
        return loss, {"square": float(loss.detach()), "x": float(x.mean())}


class Stop(BaseException):
    """As Cancel."""


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = Line(None, accumulate=2)
    whole.loop.run(whole.part)

    def stop(loop: Loop) -> None:
        if loop.step == 5:
            raise Stop

    first = Line(tmp_path, accumulate=2)
    with pytest.raises(Stop):
        first.loop.run(first.part, stop)
    second = Line(tmp_path, accumulate=2)
    assert second.loop.step == 5
    second.loop.run(second.part)
    assert second.asked[0] == (5, 0)
    assert torch.equal(second.parameter, whole.parameter)
    assert torch.equal(second.touched, whole.touched)
    assert torch.equal(second.loop.average_of("line")["a"], whole.loop.average_of("line")["a"])
    assert second.loop.history.values == whole.loop.history.values
    assert len(whole.loop.history.values["square"]) == 8


class Curve:
    """What is measured beside a run, and kept with it."""

    def __init__(self) -> None:
        self.points: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = state["points"]


def test_what_is_measured_is_kept_with_its_step_and_may_end_the_run(tmp_path: Path) -> None:
    def run(until: int) -> tuple[Line, Curve]:
        curve = Curve()
        line = Line(tmp_path, also=curve)

        def measure(loop: Loop) -> bool:
            if loop.step > until:
                raise Stop
            if loop.step % 2 == 0 and loop.step not in curve.points:
                curve.points.append(loop.step)
            return loop.step == 6

        line.loop.run(line.part, measure=measure)
        return line, curve

    with pytest.raises(Stop):
        run(until=3)
    line, curve = run(until=8)
    assert line.asked[0] == (4, 0)  # the step in whose measuring it was stopped is not lost
    assert curve.points == [0, 2, 4, 6]
    assert line.loop.step == 6
    again, curve = run(until=8)
    assert (again.asked, curve.points) == ([], [0, 2, 4, 6])


def test_a_stop_inside_a_step_leaves_the_state_before_it(tmp_path: Path) -> None:
    line = Line(tmp_path)

    def part(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        found = line.part(step, part)
        if step == 4:
            raise Stop
        return found

    with pytest.raises(Stop):
        line.loop.run(part)
    again = Line(tmp_path)
    assert (again.loop.step, float(again.touched)) == (4, 4.0)


def test_a_loss_that_is_no_number_stops_names_the_step_and_keeps_what_was_good(
    tmp_path: Path,
) -> None:
    line = Line(tmp_path)
    line.bad = 4
    with pytest.raises(TrainingError, match=r"The loss square of step 5 .* after step 4 is kept"):
        line.loop.run(line.part)
    kept = Line(tmp_path)
    assert kept.loop.step == 4
    assert torch.isfinite(kept.parameter).all()
    assert torch.equal(kept.parameter, line.parameter)


def test_a_gradient_that_is_no_number_stops_too() -> None:
    line = Line(None)

    def part(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        return (line.parameter.sum() * 0).sqrt() + 1, {}  # its slope at 0 is infinite

    with pytest.raises(TrainingError, match="gradient of step 1"):
        line.loop.run(part)
    assert torch.equal(line.parameter, torch.zeros(3))


def test_a_full_disk_is_named_and_the_state_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, write = Line(tmp_path), state_module.write_atomically

    def full(path: Path, data: bytes) -> None:
        if line.loop.step > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(state_module, "write_atomically", full)
    with pytest.raises(TrainingError, match=r"No space left.*free some space"):
        line.loop.run(line.part)
    assert Line(tmp_path).loop.step == 3


def test_a_state_of_something_else_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.loop.run(line.part)
    with pytest.raises(TrainingError, match="other settings"):
        Line(tmp_path, about="curve")
    (tmp_path / "training.pt").write_bytes(b"cut")
    with pytest.raises(TrainingError, match="cannot be read"):
        Line(tmp_path)


def test_numbers_that_make_no_run_are_refused() -> None:
    for changes in ({"steps": 0}, {"steps": 1, "accumulate": 0}, {"steps": 1, "ema": 1.0}):
        with pytest.raises(TrainingError, match="give"):
            Pace(**changes)  # type: ignore[arg-type]


def test_the_rate_warms_up_stays_and_falls_to_its_floor() -> None:
    rate = LearningRate(1.0, 100, warm_up=10, decay_from=0.5, floor=0.1)
    assert [rate.at(step) for step in (0, 9, 10, 50)] == pytest.approx([0.1, 1, 1, 1])
    assert rate.at(75) == pytest.approx(0.55)
    assert rate.at(99) == pytest.approx(0.1, abs=0.001)
    assert LearningRate(1.0, 10).at(9) == 1.0


def test_other_weights_are_in_the_models_place_for_a_while() -> None:
    parameters = {"a": nn.Parameter(torch.ones(2))}
    kept = copied(parameters)
    with instead(parameters, {"a": torch.zeros(2)}), torch.no_grad():
        assert float(parameters["a"].sum()) == 0
    assert torch.equal(parameters["a"], kept["a"])


def test_draws_belong_to_their_names() -> None:
    first = noise((4,), generator(1, "a", 2))
    assert torch.equal(first, noise((4,), generator(1, "a", 2)))
    for names in (("a", 3), ("b", 2), ("a", 2, 0)):
        assert not torch.equal(first, noise((4,), generator(1, *names)))
