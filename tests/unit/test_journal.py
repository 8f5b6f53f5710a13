"""The journal file: it only grows, has one writer, and says what is wrong with it."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from comfyui_calibri.calibri.batches import Shortage
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.journal import Journal, JournalError

VECTORS = np.array([[1.0, 0.1 + 0.2], [np.nextafter(1, 2), -1.0]])
BUCKET = (Sample(0, 2**63 - 1), Sample(4, 0), Sample(0, 17))
BATCHES = [((0, 0), (1, 0)), ((0, 1), (1, 1), (0, 2)), ((1, 2),)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a run.sqlite"


def begun(journal: Journal):
    journal.add_evaluation("generation", 1, VECTORS, BUCKET, BATCHES)
    return journal.evaluation("generation", 1)


def test_numbers_come_back_bit_for_bit(path):
    rewards = np.array([0.1, 1e-300])
    with Journal.open(path) as journal:
        journal.set_config({"prompts": ["ein Bär"], "seed": 3})
        journal.add_result(begun(journal), BATCHES[0], rewards, 0.25)
        journal.add_event("started", {"versions": {"numpy": "2"}})
    with Journal.read(path) as journal:
        assert journal.config() == {"prompts": ["ein Bär"], "seed": 3}
        kept = journal.evaluation("generation", 1)
        (event,) = journal.events()
    assert kept.vectors.tobytes() == VECTORS.tobytes()
    assert kept.bucket == BUCKET
    assert (kept.rewards[:, 0] == rewards).all()
    assert np.isnan(kept.rewards[:, 1:]).all()
    assert kept.pending == tuple(BATCHES[1:])
    assert (kept.done, kept.seconds) == (2, 0.25)
    assert (event.kind, event.detail) == ("started", {"versions": {"numpy": "2"}})


def test_a_new_plan_replaces_what_is_pending(path):
    with Journal.open(path) as journal:
        evaluation = begun(journal)
        journal.add_result(evaluation, BATCHES[0], np.zeros(2), 0.0)
        assert journal.shortages() == []
        halves = [BATCHES[1][:2], BATCHES[1][2:], BATCHES[2]]
        journal.replace_plan(evaluation, halves, too_large=3)
        assert journal.evaluation("generation", 1).pending == tuple(halves)
        assert journal.shortages() == [Shortage(3, 0)]


def test_evaluations_are_found_by_role_and_generation(path):
    with Journal.open(path) as journal:
        for role, generation in [("validation", 0), ("generation", 1), ("validation", 1)]:
            journal.add_evaluation(role, generation, VECTORS, BUCKET, BATCHES)
        assert [e.generation for e in journal.evaluations("validation")] == [0, 1]
        assert len(journal.evaluations()) == 3
        assert journal.evaluation("selection", 1) is None
        with pytest.raises(JournalError, match="UNIQUE"):
            begun(journal)


@pytest.mark.parametrize("table", ["configuration", "evaluations", "plans", "results", "events"])
def test_rows_are_never_changed_or_deleted(path, table):
    with Journal.open(path) as journal:
        journal.set_config({})
        journal.add_result(begun(journal), BATCHES[0], np.zeros(2), 0.0)
        journal.add_event("started", {})
    database = sqlite3.connect(path)
    for change in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id + 1"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            database.execute(change)
    database.close()


def test_commits_survive_the_process_and_never_tear(path):
    with Journal.open(path) as journal:
        database = journal._database
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 1


def test_one_writer_and_many_readers(path):
    with Journal.open(path) as journal:
        with pytest.raises(JournalError, match=r"another run may be using it.*another name"):
            Journal.open(path)
        begun(journal)
        with Journal.read(path) as reader:
            assert len(reader.evaluations()) == 1
            with pytest.raises(JournalError, match="readonly"):
                reader.set_config({})
    Journal.open(path).close()


def test_several_threads_may_use_it_one_at_a_time(path):
    with Journal.open(path) as journal, ThreadPoolExecutor(4) as threads:
        evaluation = begun(journal)

        def use(number):
            journal.add_result(evaluation, BATCHES[number], np.zeros(len(BATCHES[number])), 1.0)
            journal.add_event("used", {"number": number})
            return len(journal.events())

        counts = list(threads.map(use, [0, 2] * 40))
        assert max(counts) == 80
        assert journal.evaluation("generation", 1).seconds == 80
        assert len({event.detail["number"] for event in journal.events()}) == 2


def test_one_evaluation_is_found_without_reading_all(path):
    with Journal.open(path) as journal:
        begun(journal)
    # As the first version of this program left it.
    with closing(sqlite3.connect(path)) as database:
        for index in ("results_of_evaluation", "plans_of_evaluation"):
            database.execute(f"DROP INDEX {index}")
    with Journal.read(path) as journal:
        assert journal.evaluation("generation", 1).pending
    with Journal.open(path) as journal:
        asked = []
        journal._database.set_trace_callback(asked.append)
        assert journal.evaluation("generation", 1).pending
        journal._database.set_trace_callback(None)
        assert len(asked) == 3
        for query in asked:
            plan = journal._database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert all("USING" in line[3] and "INDEX" in line[3] for line in plan), plan


def test_a_failed_write_leaves_the_journal_usable(path):
    with Journal.open(path) as journal:
        journal._database.execute("PRAGMA max_page_count = 20")
        evaluation = begun(journal)
        with pytest.raises(JournalError, match=r"full.*disk has space.*is kept"):
            journal.add_result(evaluation, BATCHES[0], np.zeros(50_000), 0.0)
        journal.add_result(evaluation, BATCHES[0], np.ones(2), 0.0)
        assert journal.evaluation("generation", 1).done == 2


def test_what_is_not_a_journal_is_refused_and_kept(tmp_path):
    text = tmp_path / "notes.sqlite"
    text.write_text("not a database, long enough to be looked at as one" * 40)
    with pytest.raises(JournalError, match=r"not a database.*see that it is a calibration journal"):
        Journal.open(text)
    assert text.read_text().startswith("not a database")

    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE songs (name TEXT)")
    database.close()
    with pytest.raises(JournalError, match="journal version 0"):
        Journal.open(foreign)
    Journal.open(tmp_path / "new.sqlite").close()


def test_a_newer_schema_is_refused(path):
    Journal.open(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    for opened in (Journal.open, Journal.read):
        with pytest.raises(JournalError, match=r"version 99.*use the version of comfyui-calibri"):
            opened(path)


def test_a_missing_or_unreachable_journal(tmp_path):
    with pytest.raises(JournalError, match="There is no journal"):
        Journal.read(tmp_path / "none.sqlite")
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="name another folder"):
        Journal.open(tmp_path / "file" / "run.sqlite")


def test_closing_leaves_one_file_and_the_lock(path):
    Journal.open(path).close()
    assert sorted(os.listdir(path.parent)) == ["a run.sqlite", "a run.sqlite.lock"]
