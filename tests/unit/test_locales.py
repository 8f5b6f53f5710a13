"""The page's words: what its code asks for is there in every language, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LANGUAGES = ("en", "zh")
FILES = ("main.json", "commands.json", "settings.json")
COMMAND = re.compile(r'"(Calibri\.\w+)"')
SETTING = re.compile(r'"(Calibri\.\w+\.\w+)"')
VALUE = re.compile(r"\{(\w+)\}")


def leaves(branch: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Each text with its key, "runs.title"."""
    for name, value in branch.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


def texts(root: Path, language: str, file: str) -> dict[str, str]:
    branch = json.loads((root / "locales" / language / file).read_text(encoding="utf-8"))
    return dict(leaves(branch["calibri"] if file == "main.json" else branch))


@pytest.fixture(scope="module")
def code(root: Path) -> str:
    files = [*(root / "web").rglob("*.js"), *(root / "web").rglob("*.mjs")]
    ours = [file for file in files if "vendor" not in file.parts]
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(ours))


@pytest.mark.parametrize("file", FILES)
def test_languages_say_the_same_things(root: Path, file: str) -> None:
    first, *others = (texts(root, language, file) for language in LANGUAGES)
    for other in others:
        assert first.keys() == other.keys()
        for key, text in first.items():
            assert set(VALUE.findall(text)) == set(VALUE.findall(other[key])), key
            assert other[key].strip(), key


def test_every_word_asked_for_is_there_and_none_is_left_over(root: Path, code: str) -> None:
    there = set(texts(root, "en", "main.json"))
    areas = "|".join({key.split(".")[0] for key in there})
    # "runs.title" wherever it stands; `runs.state.${state}`, whose end is known at run time only.
    asked = set(re.findall(rf'"((?:{areas})\.[\w.]+)"', code)) | set(
        re.findall(r'\bt\("([^"]+)"', code)
    )
    begun = tuple(set(re.findall(r"\bt\(`([\w.]+\.)\$\{", code)))
    assert asked
    assert begun
    assert asked - there == set()
    assert {prefix for prefix in begun if not any(key.startswith(prefix) for key in there)} == set()
    assert {key for key in there - asked if not key.startswith(begun)} == set()


def test_commands_have_their_words(root: Path, code: str) -> None:
    there = {key.removesuffix(".label") for key in texts(root, "en", "commands.json")}
    named = {name.replace(".", "_") for name in COMMAND.findall(code)}
    assert there <= named


def test_settings_have_their_words(root: Path, code: str) -> None:
    there = {tuple(key.split(".")) for key in texts(root, "en", "settings.json")}
    named = {name.replace(".", "_") for name in SETTING.findall(code)}
    assert there == {(name, kind) for name in named for kind in ("name", "tooltip")}
