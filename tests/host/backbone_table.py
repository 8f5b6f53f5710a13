"""The tables of docs/backbones.md, counted on the models themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from comfyui_calibri.calibri.backbones import Backbone, Tap, read_backbone
from comfyui_calibri.calibri.coefficients import GRANULARITIES, coefficient_space

from .dits import CASES
from .dits.case import DitCase


@dataclass(frozen=True)
class Row:
    """One published model, or a family's tiny instance where no size is known for certain."""

    case: DitCase
    model: str
    backbone: Backbone
    published: bool


def coefficient_table() -> str:
    """Family, model, blocks, branches, coefficients and tap kind, in Markdown."""
    lines = [
        "| family | model | blocks | branches | block | layer | gate | scaled at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(_rows(), key=lambda row: row.case.family):
        backbone = row.backbone
        counts = [len(coefficient_space(backbone, g).names) for g in GRANULARITIES]
        numbers = [str(count) if row.published else "–" for count in counts]
        blocks = [
            f"{count} {kind}" if row.published else kind for kind, count in backbone.blocks.items()
        ]
        cells = [
            f"`{backbone.family}`",
            row.model,
            ", ".join(blocks),
            "; ".join(_branches(backbone)),
            *numbers,
            _places(backbone.taps),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cases_table() -> str:
    """What each family is tested on, in Markdown."""
    lines = ["| family | tested on tiny instances of the real class | remarks |", "|---|---|---|"]
    families = sorted({case.family for case in CASES})
    for family in families:
        cases = [case for case in CASES if case.family == family]
        remarks = list(dict.fromkeys(text for case in cases for text in _remarks(case)))
        names = ", ".join(case.name for case in cases)
        lines.append(f"| `{family}` | {names} | {'; '.join(remarks)} |")
    return "\n".join(lines)


def _rows() -> Iterator[Row]:
    counted = {case.family for case in CASES if case.sizes}
    for case in CASES:
        for position, (name, make) in enumerate(case.sizes.items()):
            also = ", ".join(case.also) if position == len(case.sizes) - 1 else ""
            yield Row(case, f"{name} ({also})" if also else name, read_backbone(make()), True)
        if case.family not in counted:
            counted.add(case.family)
            yield Row(case, case.name, read_backbone(case.make()), False)


def _branches(backbone: Backbone) -> Iterator[str]:
    """For each kind of block: "double: attention, mlp of image, text"."""
    for kind in backbone.blocks:
        taps = [tap for tap in backbone.taps if tap.block == kind]
        streams = dict.fromkeys(tap.stream for tap in taps)
        found: dict[tuple[str, ...], list[str]] = {}
        for stream in streams:
            branches = tuple(dict.fromkeys(tap.branch for tap in taps if tap.stream == stream))
            found.setdefault(branches, []).append(stream)
        parts = (f"{', '.join(b)} of {' and '.join(s)}" for b, s in found.items())
        yield f"{kind}: {', '.join(parts)}"


def _places(taps: Iterable[Tap]) -> str:
    places = {
        "tanh of a gate" if tap.tanh else "gate" if tap.chunks > 1 else "output" for tap in taps
    }
    return " and ".join(sorted(places))


def _remarks(case: DitCase) -> Iterator[str]:
    if case.one_gain_for_all:
        yield f"one set of coefficients per call ({case.one_gain_for_all})"
    if case.note:
        yield case.note
