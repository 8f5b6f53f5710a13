"""Prompt sets as files with tags and weights, and what is made of them: samples and splits.

A prompt that differs from another one in case or white space alone is the same prompt.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .prompts import PromptListError, read_prompts

SUFFIXES = (".txt", ".csv", ".json")


@dataclass(frozen=True)
class TaggedPrompt:
    """A prompt, the tags to choose it by, and how likely a sample draws it (1 is usual)."""

    text: str
    tags: frozenset[str] = frozenset()
    weight: float = 1.0


def read_prompt_set(path: Path) -> tuple[TaggedPrompt, ...]:
    """Prompts of a UTF-8 file in its order, repeated ones once.

    .txt: one a line, # begins a comment. .csv: with a column "prompt" and, if wanted, "tags"
    (separated by ; or |) and "weight". .json: a list of texts, or of objects with those keys, or
    such a list under "prompts". Raises PromptListError, which names the row that is wrong.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PromptListError(
            f"{path.name!r} is no prompt file; save the prompts as .txt, .csv or .json."
        )
    if suffix == ".txt":
        return tuple(TaggedPrompt(text) for text in read_prompts(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptListError(f"The prompt file {path} is not UTF-8 text: save it so.") from error
    except OSError as error:
        raise PromptListError(
            f"The prompt file {path} cannot be read ({error.strerror}): check its name and folder."
        ) from error
    rows = _csv_rows(path.name, text) if suffix == ".csv" else _json_rows(path.name, text)
    return _once(path.name, rows)


def sample_prompts(
    prompts: Sequence[TaggedPrompt], tags: Iterable[str], count: int, seed: int
) -> tuple[str, ...]:
    """At most `count` (0: all) of the prompts that have one of `tags` (none: all), in their order.

    Drawn by weight and `seed`, each by its own text: a set that grows keeps nearly the same sample.
    Raises PromptListError where no prompt is left.
    """
    wanted = {tag.strip().casefold() for tag in tags} - {""}
    left = [p for p in prompts if p.weight > 0 and (not wanted or wanted & p.tags)]
    if not left:
        known = sorted({tag for prompt in prompts for tag in prompt.tags})
        raise PromptListError(
            f"No prompt has one of the tags {', '.join(sorted(wanted))}; "
            f"there are {', '.join(known) or 'no tags'}."
            if wanted
            else "Every prompt has the weight 0; give one of them a larger one."
        )
    if not 0 < count < len(left):
        return tuple(prompt.text for prompt in left)
    # Efraimidis and Spirakis 2006: the largest u^(1/w) are a sample without replacement.
    ranks = sorted(left, key=lambda p: math.log(_unit(seed, p.text)) / p.weight, reverse=True)
    drawn = {prompt.text for prompt in ranks[:count]}
    return tuple(prompt.text for prompt in left if prompt.text in drawn)


def split_in_three(
    prompts: Sequence[str], validation: float, test: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(train, validation, test), in their order; no prompt of one part is in another.

    `validation` and `test` are shares of all prompts, rounded to whole prompts, at least one where
    the share is above 0. Raises PromptListError where nothing is left to train on.
    """
    groups: dict[str, list[str]] = {}
    for prompt in prompts:
        groups.setdefault(_key(prompt), []).append(prompt)
    counts = [
        max(1, round(share * len(groups))) if share > 0 else 0 for share in (test, validation)
    ]
    if not groups or sum(counts) >= len(groups):
        raise PromptListError(
            f"{len(groups)} different prompts cannot be split: {counts[1]} for validation and "
            f"{counts[0]} for test leave none to train on; add prompts or lower the shares."
        )
    order = sorted(groups, key=lambda key: _unit(seed, key))
    tested, validated = set(order[: counts[0]]), set(order[counts[0] : sum(counts)])
    held = tested | validated
    return (
        tuple(prompt for prompt in prompts if _key(prompt) not in held),
        tuple(prompt for prompt in prompts if _key(prompt) in validated),
        tuple(prompt for prompt in prompts if _key(prompt) in tested),
    )


def _key(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()


def _unit(seed: int, prompt: str) -> float:
    """A number in 0..1, neither of them, that belongs to the prompt."""
    digest = blake2b(f"{seed}/{_key(prompt)}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2.0**64


def _csv_rows(name: str, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        columns = [column.strip().lower() for column in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = list(reader)
    except csv.Error as error:
        raise PromptListError(f"{name} cannot be read as CSV: {error}.") from error
    if "prompt" not in columns:
        said = ", ".join(columns) or "nothing"
        raise PromptListError(
            f'{name} has no column "prompt" (its first row says {said}); '
            "name the columns prompt, tags and weight in the first row."
        )
    return [(f"row {number}", row) for number, row in enumerate(rows, 2)]


def _json_rows(name: str, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptListError(f"{name} cannot be read as JSON: {error}.") from error
    entries = found.get("prompts") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise PromptListError(f'{name} holds no list of prompts; write ["a prompt", "another"].')
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for number, entry in enumerate(entries, 1):
        row = {"prompt": entry} if isinstance(entry, str) else entry
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise PromptListError(
                f'{name}: entry {number} is no prompt; write a text or {{"prompt": "a text"}}.'
            )
        rows.append((f"entry {number}", row))
    return rows


def _once(name: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[TaggedPrompt, ...]:
    found: dict[str, TaggedPrompt] = {}
    for place, row in rows:
        text = " ".join(str(row["prompt"] or "").split())
        if text:
            weight = _weight(f"{name}: {place}", row.get("weight"))
            found.setdefault(_key(text), TaggedPrompt(text, _tags(row.get("tags")), weight))
    if not found:
        raise PromptListError(f"The prompt file {name} holds no prompts.")
    return tuple(found.values())


def _tags(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    parts = value if isinstance(value, list) else str(value).replace("|", ";").split(";")
    return frozenset(str(part).strip().casefold() for part in parts) - {""}


def _weight(place: str, value: Any) -> float:
    if value is None or value == "":
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise PromptListError(f"{place} has the weight {value!r}; write a number from 0.")
    return weight
