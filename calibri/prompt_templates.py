"""Prompts out of a template: "{a|two} __colour__ cube" with lists of words.

`{a|b}` chooses one of its parts, which may hold choices themselves; `__name__` one entry of a list.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .prompts import PromptListError

_NAME = re.compile(r"__([A-Za-z0-9][A-Za-z0-9 -]*(?:_[A-Za-z0-9 -]+)*)__")
_DEEPEST = 50  # choices within choices
_TRIES = 20  # draws for each wanted prompt, where most of them repeat others


@dataclass(frozen=True)
class _Choice:
    parts: tuple[tuple[str | _Choice, ...], ...]


_Sequence = tuple[str | _Choice, ...]


def parse_lists(text: str) -> dict[str, tuple[str, ...]]:
    """Lists by name from lines as "colour: red, green"; a repeated name adds to its list.

    Raises PromptListError for a line without a name or an entry.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        entries = tuple(entry.strip() for entry in rest.split(",") if entry.strip())
        if not colon or not _NAME.fullmatch(f"__{name.strip()}__") or not entries:
            raise PromptListError(
                f"The line {line.strip()!r} is no list; write a name and its words, as in "
                "'colour: red, green, blue'."
            )
        found[name.strip()] = (*found.get(name.strip(), ()), *entries)
    return found


def expand_template(
    template: str, lists: Mapping[str, tuple[str, ...]], count: int, seed: int
) -> tuple[str, ...]:
    """At most `count` different prompts of a template; each line that is not empty is one template.

    All of them, in order, where there are no more; otherwise drawn by `seed`. Raises
    PromptListError for a template without words, an open brace, or a list that is not there.
    """
    lines = [line.strip() for line in template.splitlines()]
    parsed = [_parse(line, lists) for line in lines if line and not line.startswith("#")]
    if not parsed:
        raise PromptListError("The template is empty; write a prompt with {choices|in braces}.")
    if sum(_size(sequence) for sequence in parsed) <= count:
        every = (text for sequence in parsed for text in _all(sequence))
        prompts = _different(every, count)
    else:
        prompts = _different(_drawn(parsed, count, seed), count)
    if not prompts:
        raise PromptListError("The template makes empty prompts only; write words into it.")
    return prompts


def _parse(line: str, lists: Mapping[str, tuple[str, ...]]) -> _Sequence:
    """Recursive descent over one line."""

    def sequence(place: int, depth: int) -> tuple[_Sequence, int]:
        items: list[str | _Choice] = []
        while place < len(line):
            sign = line[place]
            if sign == "{" and depth == _DEEPEST:
                raise PromptListError(
                    f"The template {line[:40]!r}… has choices within choices, more than {_DEEPEST} "
                    "deep; write some of them as lists."
                )
            if sign == "{":
                choice, place = choices(place + 1, depth + 1)
                items.append(choice)
            elif sign == "}" and depth == 0:
                raise PromptListError(f"The template {line!r} closes a brace that was not opened.")
            elif sign in "|}" and depth:
                break
            elif name := _NAME.match(line, place):
                items.append(_listed(name.group(1), line, lists))
                place = name.end()
            else:
                items.append(sign)
                place += 1
        return tuple(items), place

    def choices(place: int, depth: int) -> tuple[_Choice, int]:
        parts = []
        while True:
            part, place = sequence(place, depth)
            parts.append(part)
            if place >= len(line):
                raise PromptListError(f"The template {line!r} has an open brace; close it with }}.")
            if line[place] == "}":
                return _Choice(tuple(parts)), place + 1
            place += 1

    return sequence(0, 0)[0]


def _listed(name: str, line: str, lists: Mapping[str, tuple[str, ...]]) -> _Choice:
    if name not in lists:
        known = ", ".join(lists) or "none"
        raise PromptListError(
            f"The template {line!r} asks for the list {name!r}, but the lists are: {known}; add "
            f"a line '{name}: …'."
        )
    return _Choice(tuple((entry,) for entry in lists[name]))


def _size(sequence: _Sequence) -> int:
    """How many texts a sequence makes, equal ones counted apart."""
    size = 1
    for item in sequence:
        if isinstance(item, _Choice):
            size *= sum(_size(part) for part in item.parts)
    return size


def _all(sequence: _Sequence) -> Iterator[str]:
    each = [
        [item] if isinstance(item, str) else [text for part in item.parts for text in _all(part)]
        for item in sequence
    ]
    return ("".join(parts) for parts in itertools.product(*each))


def _drawn(parsed: list[_Sequence], count: int, seed: int) -> Iterator[str]:
    """Random texts, each of a template drawn evenly and of choices drawn evenly."""
    random = np.random.default_rng(seed)

    def draw(sequence: _Sequence) -> str:
        return "".join(
            item if isinstance(item, str) else draw(item.parts[random.integers(len(item.parts))])
            for item in sequence
        )

    return (draw(parsed[random.integers(len(parsed))]) for _ in range(count * _TRIES))


def _different(texts: Iterator[str], count: int) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for text in texts:
        plain = " ".join(text.split())
        if plain:
            found.setdefault(plain.casefold(), plain)
        if len(found) == count:
            break
    return tuple(found.values())
