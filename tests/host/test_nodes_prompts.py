"""Prompt Set as a node: prompts from its text, a file or the demo, or refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
import pytest

from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.prompts import CalibriPromptSet

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input folder."""
    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return tmp_path / "input"


PROMPTS: dict[str, Any] = {"source": "text", "text": "", "file": "none"}


def prompt_set(**changes: Any) -> tuple[str, ...]:
    options = {**PROMPTS, "count": 5, "seed": 0, "split": "train", **changes}
    checked = CalibriPromptSet.validate_inputs(
        **{name: options[name] for name in ("source", "text", "file")}
    )
    assert checked is True, checked
    result: tuple[str, ...] = CalibriPromptSet.execute(**options).args[0]
    return result


def test_prompts_from_text_file_and_demo(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "mine.txt").write_text("# mine\na cat\n\na dog\na cat\n")
    assert prompt_set(text="a\nb\n") == ("a", "b")
    assert folders.input_text_files() == ["lists/mine.txt"]
    assert prompt_set(source="file", file="lists/mine.txt") == ("a cat", "a dog")
    train, test = prompt_set(source="demo"), prompt_set(source="demo", split="test")
    assert len(set(train) | set(test)) == 10


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text": " \n# only a comment\n"}, "holds no prompts"),
        ({"source": "file"}, "No prompt file is chosen"),
        ({"source": "file", "file": "absent.txt"}, "cannot be read"),
        ({"source": "file", "file": "../secret.txt"}, "outside ComfyUI's input folder"),
        ({"source": "file", "file": "/etc/passwd"}, "outside ComfyUI's input folder"),
        ({"source": "file", "file": r"\\server\share\a.txt"}, "outside ComfyUI's input folder"),
        ({"source": "file", "file": r"a\..\..\secret.txt"}, "outside ComfyUI's input folder"),
        ({"source": "file", "file": "picture.png"}, "is not a .txt file"),
        ({"source": "file", "file": "binary.txt"}, "is not UTF-8 text"),
        ({"source": "file", "file": "empty.txt"}, "holds no prompts"),
    ],
)
def test_prompt_lists_that_cannot_be_are_refused_before_the_run(
    folder: Path, changes: dict[str, str], problem: str
) -> None:
    (folder.parent / "secret.txt").write_text("a secret")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    (folder / "empty.txt").write_text("\n")
    assert problem in str(CalibriPromptSet.validate_inputs(**{**PROMPTS, **changes}))


def test_changed_prompt_file_is_read_again(folder: Path) -> None:
    file = folder / "mine.txt"
    file.write_text("a cat")
    before = CalibriPromptSet.fingerprint_inputs(source="file", file="mine.txt", count=3)
    os.utime(file, (1, 1))
    assert CalibriPromptSet.fingerprint_inputs(source="file", file="mine.txt", count=3) != before


def test_paths_that_lead_out_are_refused_without_being_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(folder_paths.get_input_directory()).resolve()
    touched = []

    def resolve(path: Path, strict: bool = False) -> Path:
        touched.append(path)
        return root

    monkeypatch.setattr(Path, "resolve", resolve)
    for name in (r"\\server\share\a.txt", "//server/share/a.txt", "C:a.txt", r"..\a.txt"):
        with pytest.raises(ValueError, match="lies outside ComfyUI's input folder"):
            folders.input_path(name)
    assert set(touched) == {Path(folder_paths.get_input_directory())}


def test_linked_name_has_no_file_yet() -> None:
    # ComfyUI gives None for an input that comes from another node.
    for source, file in (("file", None), (None, "mine.txt"), (None, None)):
        assert CalibriPromptSet.fingerprint_inputs(source=source, file=file, count=3) == 0.0
