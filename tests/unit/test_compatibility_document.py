"""Each line of docs/compatibility.md names tests, and each test of a combination has a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

VERDICTS = ("works", "refused", "differs")


@pytest.fixture(scope="module")
def rows(root: Path) -> list[list[str]]:
    """The cells of the document's tables, without their headings."""
    lines = (root / "docs" / "compatibility.md").read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    return [row for row in cells if row[0] != "with"]


def names_in(files: list[Path]) -> set[str]:
    names: set[str] = set()
    for file in files:
        names |= set(re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    return names


def named(row: list[str]) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", row[-1]))


def test_each_line_says_what_happens_to_each_kind_of_preset(rows: list[list[str]]) -> None:
    assert rows
    for row in rows:
        assert len(row) == 5, row
        assert all(cell.startswith(VERDICTS) for cell in row[1:4]), row


def test_each_line_names_tests_that_exist(root: Path, rows: list[list[str]]) -> None:
    existing = names_in(list((root / "tests" / "host").glob("test_*.py")))
    for row in rows:
        assert named(row), row
        assert named(row) <= existing, row


def test_each_test_of_a_combination_has_a_line(root: Path, rows: list[list[str]]) -> None:
    tests = names_in(list((root / "tests" / "host").glob("test_compatibility_*.py")))
    assert tests <= set().union(*(named(row) for row in rows))
