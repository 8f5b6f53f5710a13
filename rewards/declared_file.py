"""The server-side file that declares rewards: YAML, read so that a mistake has a line number.

Every scalar stays text, so that `python: 3.10` is no 3.1; `declarations.py` says what each means.
YAML because ComfyUI reads it already (extra_model_paths.yaml) and Python 3.10 has no TOML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HEAD = "rewards"
Place = tuple[str | int, ...]


class DeclarationError(ValueError):
    """The file cannot be used; one sentence with its name and the line."""


@dataclass(frozen=True)
class Declared:
    """The text of one declaration, and the line of each of its parts."""

    file: Path
    name: str
    content: Mapping[str, Any]
    lines: Mapping[Place, int]

    def mistake(self, place: Place, words: str) -> DeclarationError:
        """An error at `place`, a path of keys and indices in `content`."""
        while place not in self.lines:
            place = place[:-1]
        where = "".join(f" {key}" for key in place if isinstance(key, str))
        return DeclarationError(
            f"{self.file}, line {self.lines[place]}: reward {self.name!r}{where}: {words}."
        )


def read_declared(file: Path) -> dict[str, Declared]:
    """What `file` declares, by name; nothing where there is no such file.

    Raises DeclarationError.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{file} cannot be read ({error}); save it as UTF-8.") from None
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise DeclarationError(f"{file}{line} is no YAML: {problem}.") from None
    if root is None:
        return {}
    try:
        lines: dict[Place, int] = {}
        content = _plain(root, (), lines)
    except _DoubleKeyError as error:
        raise DeclarationError(
            f"{file}, line {error.line}: there is a second {error.key!r}."
        ) from None
    if content == {}:
        return {}
    if (
        not isinstance(content, dict)
        or set(content) != {HEAD}
        or not isinstance(content[HEAD], dict)
    ):
        raise DeclarationError(
            f"{file}, line {root.start_mark.line + 1}: the file begins with '{HEAD}:' and has "
            "nothing else on that level; below it is one block for each reward, by its name."
        )
    found = {}
    for name, block in content[HEAD].items():
        if not isinstance(block, dict):
            raise DeclarationError(
                f"{file}, line {lines[HEAD, name]}: reward {name!r} has no settings below it."
            )
        own = {place[2:]: at for place, at in lines.items() if place[:2] == (HEAD, name)}
        found[name] = Declared(file, name, block, own)
    return found


class _DoubleKeyError(Exception):
    def __init__(self, key: str, line: int) -> None:
        self.key, self.line = key, line


def _plain(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    """Dictionaries, lists and text of `node`; a key without a value counts as not written."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in found:
                raise _DoubleKeyError(name, line)
            lines[(*place, name)] = line
            found[name] = _plain(value, (*place, name), lines)
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, i), lines) for i, item in enumerate(node.value)]
    return None if node.style is None and node.value == "" else node.value
