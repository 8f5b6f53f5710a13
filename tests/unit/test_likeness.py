"""Workers that draw alike: what must be the same for equal results, and what is said where it is
not."""

from __future__ import annotations

from pathlib import Path

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.likeness import (
    MAY,
    MUST,
    differences,
    digest_of_sources,
    last_versions,
)

HERE = {"device": "cuda", "torch": "2.11.0+cu130", "comfyui": "0.33.0", "python": "3.12.1"}


def test_what_differs_is_named_with_both_values() -> None:
    other = {**HERE, "device": "cpu", "torch": "2.10.0", "python": "3.11.7"}
    assert differences(HERE, other, MUST, "the first worker's") == (
        "its kind of device is cuda, the first worker's cpu; "
        "its PyTorch is 2.11.0+cu130, the first worker's 2.10.0"
    )
    assert differences(HERE, other, MAY, "so far") == "its Python is 3.12.1, so far 3.11.7"
    assert differences(HERE, HERE, {**MUST, **MAY}, "so far") == ""


def test_a_version_without_its_build_and_what_is_not_told_are_no_difference() -> None:
    assert differences(HERE, {"torch": "2.11.0"}, MUST, "so far") == ""
    assert differences(HERE, {"torch": "2.11.0+rocm7"}, MUST, "so far") != ""


def test_a_journal_tells_what_its_run_was_last_drawn_with(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert last_versions(journal) == {}
        for device in ("cuda", "cpu"):
            journal.add_event("resumed", {"versions": {"device": device}})
        journal.add_event("interrupted", {"error": "OSError"})
        assert last_versions(journal) == {"device": "cpu"}


def test_other_files_have_another_digest_and_other_ends_of_lines_have_not(tmp_path: Path) -> None:
    files = [tmp_path / side / "pack" / "a.py" for side in ("one", "two")]
    for file, text in zip(files, (b"a = 1\n", b"a = 1\r\n"), strict=True):
        file.parent.mkdir(parents=True)
        file.write_bytes(text)
    one, two = (digest_of_sources([file.parent]) for file in files)
    assert one == two
    files[1].write_bytes(b"a = 2\n")
    assert digest_of_sources([files[1].parent]) != one
    files[1].write_bytes(files[0].read_bytes())
    files[1].with_name("notes.txt").write_text("no code")
    assert digest_of_sources([files[1].parent]) == one
