"""Load Prompts, Split Prompts and Prompt Template as nodes: files found, wrong input refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
import pytest

from comfyui_calibri.nodes.prompt_tools import (
    CalibriLoadPrompts,
    CalibriPromptTemplate,
    CalibriSplitPrompts,
)

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input folder."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    return tmp_path


def options(node: Any, name: str) -> list[str]:
    kinds: list[str] = node.INPUT_TYPES()["required"][name][1]["options"]
    return kinds


def test_files_of_three_kinds_are_found_and_read(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.CSV").write_text("prompt,tags\na cat,pet\na car,\n", encoding="utf-8")
    (folder / "b.json").write_text('["a", "b", "c"]', encoding="utf-8")
    (folder / "c.txt").write_text("one\n", encoding="utf-8")
    (folder / "d.png").write_bytes(b"")
    assert options(CalibriLoadPrompts, "file") == ["none", "b.json", "c.txt", "sub/a.CSV"]
    load = CalibriLoadPrompts.execute
    assert load("sub/a.CSV", "", 0, 0).args == (("a cat", "a car"),)
    assert load("sub/a.CSV", "pet", 0, 0).args == (("a cat",),)
    (drawn,) = load("b.json", "", 2, 5).args
    assert drawn == load("b.json", "", 2, 5).args[0]
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("none", "No prompt file is chosen"),
        ("absent.csv", "cannot be read"),
        ("../secret.txt", "outside ComfyUI's input folder"),
        ("/etc/passwd", "outside ComfyUI's input folder"),
        ("p.md", "is no prompt file"),
        ("empty.csv", 'no column "prompt"'),
    ],
)
def test_files_that_cannot_be_are_refused_before_the_run(
    folder: Path, file: str, problem: str
) -> None:
    (folder / "empty.csv").write_text("", encoding="utf-8")
    assert problem in str(CalibriLoadPrompts.validate_inputs(file=file))
    assert CalibriLoadPrompts.validate_inputs(file=None) is True


def test_a_changed_file_is_read_again(folder: Path) -> None:
    (folder / "p.txt").write_text("a", encoding="utf-8")
    before = CalibriLoadPrompts.fingerprint_inputs(file="p.txt", seed=0)
    os.utime(folder / "p.txt", (1, 1))
    assert CalibriLoadPrompts.fingerprint_inputs(file="p.txt", seed=0) != before
    assert CalibriLoadPrompts.fingerprint_inputs(file=None) == 0.0


class TwoEncoders:
    """Tokenizes as ComfyUI's CLIPs do: pieces of four words for one encoder, one for the other."""

    def __init__(self, *limits: int) -> None:
        self._limits = limits

    def tokenize(self, text: str) -> dict[str, list[list[str]]]:
        words = text.split()
        return {
            str(limit): [words[i : i + limit] for i in range(0, len(words), limit)]
            for limit in self._limits
        }


def test_prompts_that_an_encoder_reads_in_pieces_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (folder / "p.txt").write_text("a cat\na b c d e\n", encoding="utf-8")
    CalibriLoadPrompts.execute("p.txt", "", 0, 0, TwoEncoders(4, 99))
    assert "Warning" not in caplog.text  # the longer one reads all of it
    CalibriLoadPrompts.execute("p.txt", "", 0, 0, TwoEncoders(4))
    assert "Warning: 1 of 2 prompts are longer" in caplog.text
    assert "as in: a b c d e" in caplog.text


def test_a_split_shares_nothing() -> None:
    prompts = tuple(f"prompt {n}" for n in range(20))
    train, validation, test = CalibriSplitPrompts.execute(prompts, 0.25, 0.1, 0).args
    assert (len(train), len(validation), len(test)) == (13, 5, 2)
    assert set(train) | set(validation) | set(test) == set(prompts)


def test_templates_are_checked_before_the_run() -> None:
    template, lists = "{a|two} __colour__ cube", "colour: red, blue"
    assert CalibriPromptTemplate.validate_inputs(template=template, lists=lists) is True
    assert CalibriPromptTemplate.validate_inputs(template=None, lists=lists) is True
    assert "'colour'" in str(CalibriPromptTemplate.validate_inputs(template=template, lists=""))
    (prompts,) = CalibriPromptTemplate.execute(template, lists, 64, 0).args
    assert prompts == ("a red cube", "a blue cube", "two red cube", "two blue cube")
