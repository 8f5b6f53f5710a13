"""What a prompt demands of a picture: which things, how many, in which colour, and where.

Read from plain English of one shape, "two red cubes left of a ball and a green cone", or from a
JSON file where it is written out. In the manner of T2I-CompBench and GenEval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import nouns

COLOURS = (
    "black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LEFT, RIGHT, ABOVE, BELOW, BESIDE = RELATIONS = (
    "left of", "right of", "above", "below", "next to",
)  # fmt: skip
_PHRASES = {
    "to the left of": LEFT, "on the left of": LEFT, "left of": LEFT,
    "to the right of": RIGHT, "on the right of": RIGHT, "right of": RIGHT,
    "on top of": ABOVE, "above": ABOVE, "over": ABOVE,
    "underneath": BELOW, "beneath": BELOW, "below": BELOW, "under": BELOW,
    "next to": BESIDE, "beside": BESIDE,
}  # fmt: skip
_JOIN = re.compile(rf"\b({'|'.join(_PHRASES)}|and)\b|[,;&]")
_BEFORE = re.compile(r"^(a|an|the)?\s*(photo|photograph|picture|image|drawing|painting) of\s+")
_BEHIND = re.compile(r"\s(on|in|at|against|with)\s.*$")


@dataclass(frozen=True)
class Thing:
    """`count` of `noun` (singular); not `exact` means that many or more."""

    noun: str
    count: int = 1
    exact: bool = False
    colour: str | None = None


@dataclass(frozen=True)
class Relation:
    """The things at two places of `Demand.things`: the first stands `kind` the second."""

    first: int
    kind: str
    second: int


@dataclass(frozen=True)
class Demand:
    """All that a prompt asks for and that can be checked."""

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()


def parse_demand(prompt: str) -> Demand:
    """Read things joined by "and", commas and `RELATIONS`; ValueError where no thing is found.

    Numbers are exact, "a" is one or more. Behind "on", "in", "at", "against" and "with" nothing is
    judged, and adjectives other than colours belong to the thing's name.
    """
    text = _BEFORE.sub("", " ".join(prompt.lower().split()).rstrip(".!?"))
    things: list[Thing] = []
    relations: list[Relation] = []
    waiting: str | None = None
    place = 0
    for match in [*_JOIN.finditer(text), None]:
        thing = _thing(text[place : match.start() if match else None])
        if thing is not None:
            things.append(thing)
            if waiting is not None and len(things) > 1:
                relations.append(Relation(len(things) - 2, waiting, len(things) - 1))
            waiting = None
        if match is None:
            break
        waiting = _PHRASES.get(match.group(0), waiting if thing is None else None)
        place = match.end()
    if not things:
        raise ValueError(
            f"The prompt {prompt!r} names nothing that could be counted or found; write things, "
            'as in "two red cubes left of a ball".'
        )
    return Demand(tuple(things), tuple(relations))


def read_demands(path: Path) -> dict[str, Demand]:
    """Demands by `prompt_key` from a JSON list of {"prompt", "objects", "relations"}.

    An object is {"name", "count", "colour"}, the last two optional; a relation is
    [number of an object from 0, one of `RELATIONS`, number of another]. ValueError names the entry
    that is wrong.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path.name} holds no list of prompts with their objects.")
    found = {}
    for number, entry in enumerate(entries, 1):
        try:
            found[prompt_key(entry["prompt"])] = _written_out(entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{path.name}: entry {number} is no prompt with objects ({error}); write "
                '{"prompt": "two red cubes", "objects": [{"name": "cube", "count": 2, '
                '"colour": "red"}], "relations": []}.'
            ) from error
    return found


def prompt_key(prompt: str) -> str:
    """The same for prompts that differ in case and white space alone."""
    return " ".join(prompt.split()).casefold()


def demand_of(prompt: str, known: Mapping[str, Demand]) -> Demand:
    """The demand written out for `prompt`, else what its own words say."""
    return known.get(prompt_key(prompt)) or parse_demand(prompt)


def _written_out(entry: Mapping[str, Any]) -> Demand:
    things = []
    for item in entry["objects"]:
        count, colour = item.get("count"), item.get("colour", item.get("color"))
        if colour is not None and _plain_colour(colour) not in COLOURS:
            raise ValueError(f"the colour {colour!r} is none of {', '.join(COLOURS)}")
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"the count {count!r} is no number from 1")
        noun = nouns.singular(item["name"].lower())
        plain = None if colour is None else _plain_colour(colour)
        things.append(Thing(noun, count or 1, count is not None, plain))
    if not things:
        raise ValueError("it has no objects")
    relations = [Relation(*relation) for relation in entry.get("relations", [])]
    for relation in relations:
        if relation.kind not in RELATIONS:
            raise ValueError(f"the relation {relation.kind!r} is none of {', '.join(RELATIONS)}")
        numbers = (relation.first, relation.second)
        if not all(type(number) is int and 0 <= number < len(things) for number in numbers):
            raise ValueError("a relation names an object that is not there")
    return Demand(tuple(things), tuple(relations))


def _thing(text: str) -> Thing | None:
    words = _BEHIND.sub("", f" {text.strip()}").split()
    count, exact, colour = 1, False, None
    if words and words[0] in ("a", "an", "the"):
        words = words[1:]
    elif words and words[0] in ("no", "0", "zero"):
        raise ValueError(
            f"{text.strip()!r} asks for nothing, and what must be missing is not judged; write "
            "what should be there."
        )
    elif words and (words[0] in NUMBERS or words[0].isdecimal()):
        number = words[0]
        count = NUMBERS.index(number) + 1 if number in NUMBERS else int(number)
        exact, words = True, words[1:]
    if len(words) == 1 and words[0] != "orange" and _plain_colour(words[0]) in COLOURS:
        raise ValueError(
            f'{text.strip()!r} is a colour of nothing; give each thing its own, as in "a red ball '
            'and a blue ball".'
        )
    for word in words:
        if _plain_colour(word) in COLOURS and len(words) > 1:
            colour = _plain_colour(word)
            words = [other for other in words if other is not word]
            break
    return Thing(nouns.singular(" ".join(words)), count, exact, colour) if words else None


def _plain_colour(word: str) -> str:
    return "gray" if word.lower() == "grey" else word.lower()
