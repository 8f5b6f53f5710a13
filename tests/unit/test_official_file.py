"""Official checkpoints as files: read as they were written, refused in a sentence otherwise."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_calibri.calibri.official import OfficialCheckpointError
from comfyui_calibri.calibri.official_file import (
    OfficialCheckpoint,
    read_checkpoint,
    write_checkpoint,
)

HELD: dict[str, Any] = {
    "step": 480,
    "train_best": 0.43125,
    "train_mean": 0.25,
    "val": None,
    "solution": [1.5, 0.1, -1.0, 2.0, 0.9, -0.1, 1.0, 0.7, 7.25],
    "shapes": {"total": 9, "n_models": 1, "n_blocks": 2},
    "sigma": 0.125,
    "timestamp": 1774569600,
}


def write(path: Path, **changes: Any) -> Path:
    held = {key: value for key, value in (HELD | changes).items() if value is not ...}
    path.write_text(json.dumps(held))
    return path


def test_reads_what_the_official_code_writes(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(tmp_path / "cmaes_step_0480.json"))
    assert checkpoint == OfficialCheckpoint(
        shapes=HELD["shapes"],
        solution=tuple(HELD["solution"]),
        step=480,
        train_best=0.43125,
        train_mean=0.25,
        val=None,
        sigma=0.125,
        timestamp=1774569600,
    )
    assert checkpoint.written == "2026-03-27T00:00:00+00:00"


def test_numbers_about_the_search_may_be_missing_or_not_finite(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.json",
        step=...,
        train_best=float("nan"),
        train_mean=float("-inf"),
        val=[1],
        sigma=10**400,
        timestamp="today",
    )
    assert "NaN" in file.read_text()
    checkpoint = read_checkpoint(file)
    assert checkpoint == OfficialCheckpoint(HELD["shapes"], tuple(HELD["solution"]))
    assert checkpoint.written == ""


def test_round_trip(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(tmp_path / "a.json"))
    write_checkpoint(tmp_path / "b.json", checkpoint)
    assert json.loads((tmp_path / "b.json").read_text()) == HELD
    assert read_checkpoint(tmp_path / "b.json") == checkpoint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"solution": ...}, "no 'solution' with its 'shapes'"),
        ({"shapes": ...}, "no 'solution' with its 'shapes'"),
        ({"solution": "1, 2"}, "no 'solution' with its 'shapes'"),
        ({"shapes": [9, 1, 2]}, "no 'solution' with its 'shapes'"),
        ({"shapes": {"total": 9, "n_models": 1}}, "of no model of the official code"),
        ({"shapes": HELD["shapes"] | {"total": 10}}, "contradict themselves: total is 10"),
        ({"solution": [1.0] * 8}, "solution has 8 numbers where its shapes need 9"),
        ({"solution": [1.0] * 8 + [10.5]}, "Number 8 .*, a weight, is 10.5 .* from -10 to 10"),
        ({"solution": [2.5] + [1.0] * 8}, "Number 0 .*, a coefficient, is 2.5 .* from -1 to 2"),
        ({"solution": [1.0, float("nan")] + [1.0] * 7}, "Number 1 .* is nan and not a number"),
        ({"solution": [1.0, float("inf")] + [1.0] * 7}, "Number 1 .* is inf and not a number"),
        ({"solution": [1.0, None] + [1.0] * 7}, "Number 1 .* is None and not a number"),
        ({"solution": [1.0, True] + [1.0] * 7}, "Number 1 .* is True and not a number"),
        ({"solution": [1.0, "1"] + [1.0] * 7}, "Number 1 .* is '1' and not a number"),
        ({"solution": [[1.0]] + [1.0] * 8}, r"Number 0 .* is \[1.0\] and not a number"),
        ({"solution": [10**400] + [1.0] * 8}, "Number 0 .* is 1000.* and not a number"),
    ],
)
def test_wrong_checkpoints(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OfficialCheckpointError, match=f"a.json: .*{problem}"):
        read_checkpoint(write(tmp_path / "a.json", **changes))


@pytest.mark.parametrize("key", ["solution", "shapes"])
def test_numbers_too_long_for_python(tmp_path: Path, key: str) -> None:
    """Our sentence, not Python's about its own limit."""
    path = write(tmp_path / "a.json")
    first = '"solution": [' if key == "solution" else '"n_models": '
    text = path.read_text()
    start = text.index(first) + len(first)
    end = start + len(text[start:].split(",")[0])
    path.write_text(f"{text[:start]}{'9' * 5000}{text[end:]}")
    with pytest.raises(OfficialCheckpointError) as found:
        read_checkpoint(path)
    assert "is inf and not a number" in str(found.value) or "n_models = inf" in str(found.value)
    assert len(str(found.value)) < 300


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xfe", b'{"step": 1', b"[" * 100_000])
def test_files_that_are_no_json(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(OfficialCheckpointError, match=r"a\.json is truncated or no JSON"):
        read_checkpoint(tmp_path / "a.json")


@pytest.mark.parametrize("data", [b"[]", b"null", b'"solution"', b"NaN"])
def test_json_that_is_no_object(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(OfficialCheckpointError, match="holds no JSON object: choose"):
        read_checkpoint(tmp_path / "a.json")


def test_large_and_missing_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(OfficialCheckpointError, match="too large for a checkpoint"):
        read_checkpoint(tmp_path / "a.json")
    with pytest.raises(OfficialCheckpointError, match=r"cannot be opened .*: check its name"):
        read_checkpoint(tmp_path / "absent.json")


def test_does_not_overwrite_silently(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    checkpoint = replace(read_checkpoint(path), step=481)
    with pytest.raises(FileExistsError, match="choose another name or allow overwriting"):
        write_checkpoint(path, checkpoint)
    assert read_checkpoint(path).step == 480
    write_checkpoint(path, checkpoint, overwrite=True)
    assert read_checkpoint(path).step == 481


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json")
    checkpoint = replace(read_checkpoint(path), step=481)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"\(No space left on device\): free some space"):
        write_checkpoint(path, checkpoint, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert read_checkpoint(path).step == 480
