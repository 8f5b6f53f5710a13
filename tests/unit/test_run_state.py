"""How a run stands, from its journal; what it will cost; and how it is asked to stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_calibri.calibri import stop_request
from comfyui_calibri.calibri.calibration import calibrate
from comfyui_calibri.calibri.forecast import (
    Forecast,
    expected_images,
    makespan,
    measured_seconds,
    queue_efficiency,
)
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.journal_file import JournalBusyError
from comfyui_calibri.calibri.run_state import BROKEN, ENDED, NEW, RESTS, RUNNING, read_state

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, rows, run, same


def file_of(folder: Path) -> Path:
    return folder / "night" / "journal.sqlite"


def test_a_run_is_new_then_rests_then_has_ended(tmp_path: Path) -> None:
    journal = file_of(tmp_path)
    assert read_state(journal).state == NEW
    with pytest.raises(Interrupted):
        run(journal, ExactEvaluator(stop_at=7))
    rests = read_state(journal)
    assert (rests.id, rests.state, rests.reward, rests.generation) == ("night", RESTS, "test", 1)
    assert rests.best is not None
    assert (rests.best.generation, rests.plain) == (0, rests.best.reward)

    outcome = run(journal)
    ended = read_state(journal)
    assert (ended.state, ended.generation) == (ENDED, CONFIG.generations)
    assert ended.recommended == outcome.generation
    assert ended.images > rests.images
    assert [row["generation"] for row in ended.generations] == [1, 2, 3]
    assert [row["mean"] for row in ended.generations] == [s.mean for s in outcome.history]
    assert [row["validation"] is None for row in ended.generations] == [True, False, False]
    assert ended.summary().keys() < ended.record().keys()


def test_a_run_that_another_works_on_is_running_and_can_be_read(tmp_path: Path) -> None:
    journal = file_of(tmp_path)
    seen = []
    run(journal, on_generation=lambda _: seen.append(read_state(journal)))
    assert [state.state for state in seen] == [RUNNING] * 3
    assert [state.generation for state in seen] == [1, 2, 3]
    with Journal.open(journal), pytest.raises(JournalBusyError):
        Journal.open(journal)


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    journal = file_of(tmp_path)
    journal.parent.mkdir()
    journal.write_bytes(b"no journal at all" * 100)
    state = read_state(journal)
    assert state.state == BROKEN
    assert str(journal) in state.problem


def test_a_request_stops_a_run_which_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    journal, whole = file_of(tmp_path), tmp_path / "whole.sqlite"
    expected = run(whole)
    with Journal.open(journal) as opened:
        stop_request.ask(journal.parent, stop_request.STOP)  # older than the run: not meant
        heed = stop_request.heeding(journal.parent)

        def between(session: object) -> None:
            if session.images > 40:  # type: ignore[attr-defined]
                stop_request.ask(journal.parent, stop_request.STOP)
            heed(session)  # type: ignore[arg-type]

        with pytest.raises(stop_request.StopRequestedError):
            calibrate(CONFIG, SPACE, ExactEvaluator(), opened, between=between)
    assert stop_request.asked(journal.parent) is None
    assert 40 < read_state(journal).images < read_state(whole).images
    assert same(run(journal), expected)
    assert rows(journal) == rows(whole)


def test_a_request_to_finish_ends_the_search_with_its_generation(tmp_path: Path) -> None:
    journal = file_of(tmp_path)
    with Journal.open(journal) as opened:
        heed = stop_request.heeding(journal.parent)
        stop_request.ask(journal.parent, stop_request.FINISH)
        outcome = calibrate(CONFIG, SPACE, ExactEvaluator(), opened, between=heed)
    assert outcome.generations == 1
    assert stop_request.asked(journal.parent) is None


def test_a_wish_that_nobody_knows_is_none(tmp_path: Path) -> None:
    (tmp_path / stop_request.FILE).write_text("explode")
    assert stop_request.asked(tmp_path) is None
    stop_request.withdraw(tmp_path)
    stop_request.withdraw(tmp_path)


def test_the_images_of_a_run_are_foretold_before_and_while_it_rests(tmp_path: Path) -> None:
    config = replace(CONFIG, generations=4)
    before, drawn = expected_images(config, SPACE, None)
    assert drawn == 0
    journal = file_of(tmp_path)
    with pytest.raises(Interrupted):
        run(journal, ExactEvaluator(stop_at=9), config)
    with Journal.read(journal) as read:
        again, drawn = expected_images(config, SPACE, read)
        assert measured_seconds(read) is not None
    assert again == before
    assert drawn == read_state(journal).images > 0
    run(journal, config=config)
    assert read_state(journal).images <= before
    with Journal.read(journal) as read:
        assert expected_images(config, SPACE, read)[1] == read_state(journal).images


def test_seconds_and_money_are_of_what_is_left() -> None:
    cost = Forecast(1000, 200, 15, 0.5, 4, 0.8, 2.0)
    assert cost.seconds == 800 * 0.5 / (4 * 0.8)
    assert cost.cost == cost.seconds / 3600 * 4 * 2.0
    assert cost.record()["seconds"] == cost.seconds


def test_workers_wait_for_the_last_batch_of_a_generation() -> None:
    assert queue_efficiency(16, 8) == 1.0
    assert queue_efficiency(4, 8) == 0.5
    assert queue_efficiency(9, 8) == 9 / 16
    assert queue_efficiency(8, 8, seconds=1.0, overhead=1.0) == 0.5
    for batches in (1, 7, 16):
        assert makespan(batches, [2.0] * 4) == 2.0 * -(-batches // 4)
    # The fast one draws twice as many; the slow one holds up the end.
    assert makespan(3, [1.0, 2.0]) == 2.0
    assert makespan(4, [1.0, 2.0]) == 3.0
