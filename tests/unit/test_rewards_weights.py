"""Weights files are told apart by what is in them, without being read whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from comfyui_calibri.rewards.weights_mark import (
    PLACES,
    SAMPLE,
    weights_mark,
    weights_of,
    weights_together,
)

LARGE = 64 * 2**20


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_mark_is_of_the_content_and_not_of_the_name_or_the_time(tmp_path: Path) -> None:
    one = written(tmp_path / "one.pt", b"a" * 100)
    assert weights_mark(one) == weights_mark(written(tmp_path / "two.pt", b"a" * 100))
    assert weights_mark(one) != weights_mark(written(tmp_path / "one.pt.2", b"a" * 101))
    before = weights_mark(one)
    assert before != weights_mark(written(one, b"b" + b"a" * 99))


def test_two_files_are_not_one_nor_the_same_in_another_order(tmp_path: Path) -> None:
    head, tower = written(tmp_path / "head", b"a" * 50), written(tmp_path / "tower", b"b" * 50)
    marks = [weights_mark(head), weights_mark(head, tower), weights_mark(tower, head)]
    assert len(set(marks)) == 3


@pytest.mark.parametrize("place", [0, 5 * 1000, PLACES * SAMPLE // 2, PLACES * SAMPLE - 1])
def test_of_a_small_file_every_byte_counts(tmp_path: Path, place: int) -> None:
    content = bytearray(PLACES * SAMPLE)
    before = weights_mark(written(tmp_path / "file", bytes(content)))
    content[place] = 1
    assert weights_mark(written(tmp_path / "file", bytes(content))) != before


def test_of_a_large_file_beginning_and_end_count(tmp_path: Path) -> None:
    file = tmp_path / "large"
    marks = set()
    for place in (None, 0, LARGE - 1):
        with file.open("wb") as opened:
            opened.truncate(LARGE)
            if place is not None:
                opened.seek(place)
                opened.write(b"1")
        marks.add(weights_mark(file))
    assert len(marks) == 3


def test_a_reward_without_weights_has_no_mark() -> None:
    plain, marked = SimpleNamespace(), SimpleNamespace(weights="abc")
    assert (weights_of(plain), weights_of(marked)) == ("", "abc")
    assert weights_of(SimpleNamespace(weights={"a": 1.0})) == ""
    assert weights_together([marked, plain, marked]) == "abc abc"
