"""A whole preset as text, to paste and to travel in a workflow: 2 kB for a hundred coefficients.

Metadata stand as `name: JSON`, one a line, as `preset_metadata.py` has them; then each member as
its weight and rows such as `double.0-18.attention.image = 0.93 1 1.04 …`, a value for each block.
Unlike the rules of `compact_text.py` it names every coefficient, so no model is needed to read it.

What was measured holds for these coefficients alone. The text carries their digest: where somebody
has changed a number, the measurements are left out when it is read, and `origin` says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .compact_text import write_number
from .preset_digest import digest_of
from .preset_metadata import MAX_MEMBERS, MetadataError, Preset, preset_from_json, preset_to_json

HEAD = "# A Calibri preset"
MAX_CHARACTERS = 2**20
CHANGED = "a text whose coefficients were changed after it was measured"
_MAX_NAMES = 20_000
# Left out where they are empty.
_DEFAULTS: dict[str, Any] = {
    "title": "",
    "base_model": "",
    "fingerprint": "",
    "licence": "",
    "created": "",
    "sampling": {},
    "rewards": [],
}
_LINE_END = re.compile(r"\r\n|\r|\n")  # no others: a title may hold them
_FIELD = re.compile(r"(?P<name>[a-z_]+):(?P<value>.*)")
_ROW = re.compile(r"(?P<pattern>[\w.\-]+)\s*=(?P<values>.*)")
_SPAN = re.compile(r"(\d{1,5})-(\d{1,5})")
_NAME = re.compile(r"(?P<kind>\w+)\.(?P<index>\d{1,5})(?P<rest>(\.\w+)*)", re.ASCII)


class PresetTextError(ValueError):
    """A text that is no preset, or a preset that cannot be written as one."""


def write_preset_text(preset: Preset) -> str:
    """The preset as text, which `read_preset_text` reads back to the last bit; without its picture.

    Raises PresetTextError for names of coefficients that no family has.
    """
    header = json.loads(preset_to_json(preset))
    names: list[str] = header.pop("coefficients")
    if odd := next((name for name in names if not _is_plain(name)), None):
        raise PresetTextError(
            f"The coefficient {odd!r} cannot be written as text: share the preset as a file."
        )
    fields = {k: v for k, v in header.items() if k not in _DEFAULTS or v != _DEFAULTS[k]}
    about = f"{HEAD} for {preset.family}, {len(names)} coefficients by {preset.granularity}"
    lines = [about]
    lines += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    lines.append(f'digest: "{digest_of(preset)}"')
    for member in preset.members:
        lines.append(f"weight: {write_number(member.weight)}")
        lines += _rows(member.coefficients)
    return "\n".join(lines)


def read_preset_text(text: str) -> Preset:
    """The preset of a text. Raises PresetTextError with the mend for anything that is none."""
    if len(text) > MAX_CHARACTERS:
        raise PresetTextError("The text is too long for a preset: paste one that Calibri has made.")
    fields: dict[str, Any] = {}
    weights: list[float] = []
    members: list[dict[str, float]] = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if row := _ROW.fullmatch(line):
            if not members:
                raise PresetTextError(
                    f"Line {number} of the preset text is a row of coefficients before any "
                    "'weight:': paste the whole text. Rules such as double.0=0.8 belong into Edit "
                    "Calibri."
                )
            _read_row(row, members[-1], number)
        elif field := _FIELD.fullmatch(line):
            value = _json(field["value"], number)
            if field["name"] == "weight":
                weights.append(_weight(value, number))
                members.append({})
            elif field["name"] in fields:
                raise PresetTextError(
                    f"Line {number} of the preset text has {field['name']} again."
                )
            else:
                fields[field["name"]] = value
        else:
            raise PresetTextError(
                f"Line {number} of the preset text, {line[:40]!r}, is neither 'name: value' nor a "
                "row of coefficients: copy the text anew."
            )
    if not members:
        raise PresetTextError(
            "The text holds no preset: copy one in the tab Calibri presets, or on the node that "
            "has it."
        )
    return _checked(fields, weights, members)


def _checked(
    fields: dict[str, Any], weights: list[float], members: list[dict[str, float]]
) -> Preset:
    names = list(members[0])
    if len(members) > MAX_MEMBERS or any(set(member) != set(names) for member in members):
        raise PresetTextError(
            "The members of the preset text have coefficients of different names: copy it anew."
        )
    digest = fields.pop("digest", "")
    header = {**_DEFAULTS, **fields, "coefficients": names}
    with np.errstate(over="ignore"):  # not finite any more, which is refused
        values = np.array([[member[name] for name in names] for member in members], np.float32)
        of_members = np.array(weights, np.float32)
    try:
        preset = preset_from_json(json.dumps(header), values, of_members)
    except MetadataError as error:
        raise PresetTextError(f"The preset text cannot be used: {error}; copy it anew.") from error
    measured = preset.rewards or preset.diversity or preset.prompts
    if digest == digest_of(preset) or not measured:
        return preset
    return replace(preset, rewards=(), diversity=None, prompts=None, origin=CHANGED)


def _rows(coefficients: Mapping[str, float]) -> Iterable[str]:
    """One row for each branch and run of neighbouring blocks."""
    branches: dict[tuple[str, str], dict[int, float]] = {}
    for name, value in coefficients.items():
        parts = _NAME.fullmatch(name)
        assert parts is not None  # _is_plain
        branches.setdefault((parts["kind"], parts["rest"]), {})[int(parts["index"])] = value
    for (kind, rest), of_branch in branches.items():
        for first, last in _runs(sorted(of_branch)):
            span = f"{first}" if first == last else f"{first}-{last}"
            values = " ".join(write_number(of_branch[i]) for i in range(first, last + 1))
            yield f"{kind}.{span}{rest} = {values}"


def _runs(numbers: list[int]) -> Iterable[tuple[int, int]]:
    """First and last of each run of neighbouring numbers."""
    first = numbers[0]
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        if following != number + 1:
            yield first, number
            first = following if following is not None else first


def _read_row(row: re.Match[str], member: dict[str, float], number: int) -> None:
    values = row["values"].split()
    names = _expanded(row["pattern"], number)
    if len(values) != len(names):
        raise PresetTextError(
            f"Line {number} of the preset text has {len(values)} values for {len(names)} "
            f"coefficients ({row['pattern']}): copy it anew."
        )
    for name, value in zip(names, values, strict=True):
        if name in member:
            raise PresetTextError(f"Line {number} of the preset text has {name!r} again.")
        member[name] = _finite(value, number)
    if len(member) > _MAX_NAMES:
        raise PresetTextError("The preset text has more coefficients than any model.")


def _expanded(pattern: str, number: int) -> list[str]:
    parts = pattern.split(".")
    span = _SPAN.fullmatch(parts[1]) if len(parts) > 1 else None
    if span is None:
        return [pattern]
    first, last = int(span[1]), int(span[2])
    if not first <= last < first + _MAX_NAMES:
        raise PresetTextError(f"Line {number} of the preset text has the range {span[0]!r}.")
    return [".".join([parts[0], str(i), *parts[2:]]) for i in range(first, last + 1)]


def _is_plain(name: str) -> bool:
    parts = _NAME.fullmatch(name)
    return parts is not None and str(int(parts["index"])) == parts["index"]


def _json(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PresetTextError(
            f"Line {number} of the preset text has no JSON behind its colon: copy it anew."
        ) from None


def _weight(value: Any, number: int) -> float:
    if type(value) not in (int, float):
        raise PresetTextError(f"Line {number} of the preset text has a weight that is no number.")
    return _finite(str(value), number)


def _finite(text: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PresetTextError(
            f"Line {number} of the preset text has {text[:20]!r} where a number must be."
        )
    return value
