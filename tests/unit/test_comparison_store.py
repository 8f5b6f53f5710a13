"""Finished batches come back from their files bit by bit; damaged files are as if not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfyui_calibri.calibri.comparison_course import Part, compare
from comfyui_calibri.calibri.comparison_store import PartFolder

from .comparisons import QUALITY, ToyPainter, assert_equal, comparison


def test_a_comparison_read_from_files_equals_the_drawn_one(tmp_path: Path) -> None:
    folder = PartFolder(tmp_path / "parts")
    drawn = compare(comparison(), ToyPainter(QUALITY), folder)
    painter = ToyPainter(QUALITY)
    assert_equal(compare(comparison(), painter, folder), drawn)
    assert painter.calls == []
    assert_equal(compare(comparison(), painter), drawn)


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_files_are_drawn_again(tmp_path: Path, damage: str) -> None:
    folder = PartFolder(tmp_path)
    drawn = compare(comparison(), ToyPainter(QUALITY), folder)
    files = sorted(tmp_path.iterdir())
    for file in files:
        data = file.read_bytes()
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other": b"{}"}[damage])
    painter = ToyPainter(QUALITY)
    assert_equal(compare(comparison(), painter, folder), drawn)
    assert len(painter.calls) == len(files)


def test_a_file_with_pickles_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "opened"),))

    np.savez(tmp_path / "key.npz", rewards=np.array([Evil()], dtype=object))
    assert PartFolder(tmp_path).find("key") is None
    assert not (tmp_path / "opened").exists()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    part = Part({"r": np.zeros(1)}, np.zeros((1, 2, 2, 3), np.float32), {}, 0.1, 1)
    with pytest.raises(OSError, match="free some disk space"):
        PartFolder(tmp_path).keep("key", part)
    assert not list(tmp_path.iterdir())
