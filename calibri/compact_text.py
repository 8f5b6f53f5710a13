"""Coefficients as compact text: `double.0-3.attention=0.8, single.*=1.1`.

A rule sets (`=`) or multiplies (`*=`) all coefficients whose names fit its pattern. A pattern is a
name, part by part: a word or a number as it stands, `0-3` for a range of blocks, `*` for any part;
parts left out at its end stand for all below. Rules stand on lines of their own or between commas,
later ones win, and `#` begins a comment. `write_rules` is the way back.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MAX_RULES = 10_000
_NAMES_SHOWN = 3
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_RULE = re.compile(r"(?P<left>[^=]*)=(?P<value>[^=]*)")
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_PART = re.compile(r"\*|\w+|\d+-\d+")


class CompactTextError(ValueError):
    """A text that is no list of rules, or a rule that does not fit the coefficients."""


@dataclass(frozen=True)
class Rule:
    """One rule: what it fits, and what it does to it."""

    text: str  # as it was written, for messages
    parts: tuple[str, ...]  # of the pattern
    value: float
    multiplies: bool


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a text, in its order. Raises CompactTextError for the first that is none."""
    rules = [
        _parse(rule.strip())
        for line in text.splitlines()
        for rule in line.split("#", 1)[0].split(",")
        if rule.strip()
    ]
    if len(rules) > MAX_RULES:
        raise CompactTextError(f"The text has {len(rules)} rules: write at most {MAX_RULES}.")
    return tuple(rules)


def parse_patterns(text: str) -> tuple[tuple[str, ...], ...]:
    """Patterns alone, without values: which coefficients are meant. Raises CompactTextError."""
    words = [w.strip() for line in text.splitlines() for w in line.split("#", 1)[0].split(",")]
    return tuple(_pattern(word, word) for word in words if word)


def fitting(parts: tuple[str, ...], names: Iterable[str], text: str) -> list[str]:
    """The names that a pattern fits; `text` is what was written, for the message.

    Raises CompactTextError where there are none, or where a range goes beyond the last block.
    """
    names = list(names)
    found = [name for name in names if _fits(parts, name)]
    if not found:
        near = ", ".join(_nearest(".".join(parts), names))
        raise CompactTextError(f"{text!r} fits no coefficient: the nearest names are {near}.")
    for place, part in enumerate(parts):
        if span := _RANGE.fullmatch(part):
            last = max(int(found_at) for name in names if (found_at := _number(name, parts, place)))
            if int(span[2]) > last:
                raise CompactTextError(
                    f"{text!r} goes to block {span[2]}, and the last one there is {last}: "
                    "end its range there."
                )
    return found


def write_rules(named: Mapping[str, float]) -> list[str]:
    """Rules that make these coefficients of ones, the shortest that name no block twice.

    Values are written so that they are the same float32 when they are read again.
    """
    blocks: dict[str, dict[int, dict[str, float]]] = {}
    for name, value in named.items():
        kind, index, *rest = name.split(".")
        blocks.setdefault(kind, {}).setdefault(int(index), {})[".".join(rest)] = value
    rules = []
    for kind, of_kind in blocks.items():
        short = {index: _shared(values) for index, values in of_kind.items()}
        for ending in dict.fromkeys(ending for values in short.values() for ending in values):
            for first, last, value in _runs(short, ending):
                if np.float32(value) == 1.0:
                    continue
                where = f"{first}" if first == last else f"{first}-{last}"
                if first != last and (first, last) == (min(of_kind), max(of_kind)):
                    where = "*"
                pattern = ".".join(filter(None, (kind, where, ending)))
                rules.append(f"{pattern}={write_number(value)}")
    return rules


def write_number(value: float) -> str:
    """The shortest decimal that is the same float32: 0.8, not 0.800000011920929."""
    return np.format_float_positional(np.float32(value), trim="-")


def _parse(text: str) -> Rule:
    rule = _RULE.fullmatch(text)
    if rule is None:
        raise CompactTextError(
            f"{text!r} is no rule: write name=value or name*=factor, as double.0-3.attention=0.8."
        )
    left = rule["left"].rstrip()
    # In single.*=1.1 the star is the pattern's, in single*=1.1 it belongs to the equals sign.
    multiplies = left.endswith("*") and left != "*" and not left.endswith(".*")
    if multiplies:
        left = left[:-1].rstrip()
    number = rule["value"].strip()
    value = float(number) if _NUMBER.fullmatch(number) else math.nan
    if not math.isfinite(value):
        raise CompactTextError(
            f"The rule {text!r} has {rule['value'].strip()!r} where a number must be: write one, "
            "as in double.0=0.8."
        )
    return Rule(text, _pattern(left, text), value, multiplies)


def _pattern(written: str, rule: str) -> tuple[str, ...]:
    parts = tuple(written.split("."))
    for part in parts:
        if not _PART.fullmatch(part):
            what = f"the part {part!r}" if part else "an empty part"
            raise CompactTextError(
                f"{rule!r} has {what} in its name: write words, numbers, ranges such as "
                "0-3, or *, with dots between them."
            )
        if (span := _RANGE.fullmatch(part)) and int(span[1]) > int(span[2]):
            raise CompactTextError(
                f"{rule!r} has a range that runs backwards: write {span[2]}-{span[1]}."
            )
    return parts


def _fits(parts: tuple[str, ...], name: str) -> bool:
    of_name = name.split(".")
    return len(parts) <= len(of_name) and all(map(_part_fits, parts, of_name))


def _part_fits(part: str, of_name: str) -> bool:
    if part in ("*", of_name):
        return True
    span = _RANGE.fullmatch(part)
    if span is None or not of_name.isdecimal():
        return False
    return int(span[1]) <= int(of_name) <= int(span[2])


def _number(name: str, parts: tuple[str, ...], place: int) -> str:
    """The number that stands at `place` in a name that fits the pattern up to there, or ""."""
    of_name = name.split(".")
    ahead = all(map(_part_fits, parts[:place], of_name))
    return of_name[place] if ahead and len(of_name) > place and of_name[place].isdecimal() else ""


def _nearest(pattern: str, names: list[str]) -> list[str]:
    # A range or a star has no name that is like it: its first block has.
    plain = re.sub(r"(\d+)-\d+", r"\1", pattern).replace("*", "0")
    near = difflib.get_close_matches(plain, names, _NAMES_SHOWN, cutoff=0.0)
    return near or names[:_NAMES_SHOWN]


def _shared(values: Mapping[str, float]) -> dict[str, float]:
    """A block's coefficients by the endings of their names, those that are alike under one."""
    if len(set(values.values())) == 1:
        return {"": next(iter(values.values()))}
    branches: dict[str, dict[str, float]] = {}
    for ending, value in values.items():
        branches.setdefault(ending.split(".")[0], {})[ending] = value
    return {
        ending: value
        for branch, of_branch in branches.items()
        for ending, value in (
            {branch: next(iter(of_branch.values()))}
            if len(set(of_branch.values())) == 1
            else of_branch
        ).items()
    }


def _runs(
    blocks: Mapping[int, Mapping[str, float]], ending: str
) -> Iterable[tuple[int, int, float]]:
    """Neighbouring blocks that have one value under `ending`: (first, last, value)."""
    run: tuple[int, int, float] | None = None
    for index in sorted(blocks):
        value = blocks[index].get(ending)
        if run is not None and value == run[2] and index == run[1] + 1:
            run = (run[0], index, run[2])
            continue
        if run is not None:
            yield run
        run = None if value is None else (index, index, value)
    if run is not None:
        yield run
