"""How scripts/test ends: which exit code, and a summary in every case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tiers
from setup_error import SetupError

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the given tiers in order, on a machine that has nothing."""
    machine = tiers.Machine(Path("python"), None, (), "there is no ComfyUI")
    monkeypatch.setattr(tiers, "RESULTS", tmp_path)
    monkeypatch.setattr(tiers, "_set_up", lambda _: machine)
    monkeypatch.delenv("CI", raising=False)

    def run(**outcomes: Callable[[tiers.Machine], tuple[str, str]]) -> int:
        monkeypatch.setattr(tiers, "TIERS", outcomes)
        return tiers.run_tiers(list(outcomes), ())

    return run


def passed(_: tiers.Machine) -> tuple[str, str]:
    return "passed", "3 tests"


def failed(_: tiers.Machine) -> tuple[str, str]:
    return "failed", "pytest ended with code 1"


def not_run(machine: tiers.Machine) -> tuple[str, str]:
    return "not run", machine.no_comfyui


def without_setup(_: tiers.Machine) -> tuple[str, str]:
    raise SetupError("PyPI cannot be reached")


def test_passed_tiers_end_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(unit=passed) == 0
    monkeypatch.setenv("CI", "true")
    assert run(unit=passed) == 0


def test_tier_that_did_not_run_is_named_and_fails_only_in_ci(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(unit=passed, host=not_run) == 0
    assert "there is no ComfyUI" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    assert run(unit=passed, host=not_run) == 1


def test_tier_that_cannot_be_set_up_did_not_run_and_the_others_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(oldest=without_setup, unit=passed) == 0
    *_, oldest, unit = capsys.readouterr().out.splitlines()
    assert oldest.split()[:3] == ["oldest", "not", "run"]
    assert oldest.endswith("PyPI cannot be reached")
    assert unit.endswith("3 tests")
    monkeypatch.setenv("CI", "true")
    assert run(oldest=without_setup, unit=passed) == 1


def test_failed_tier_fails(run: Run) -> None:
    assert run(host=failed, unit=passed) == 1
