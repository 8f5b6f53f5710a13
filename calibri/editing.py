"""Presets made from presets: edited by hand, blended, or at another granularity.

What was measured for a preset does not hold for what is made of it, so rewards are dropped unless
nothing changed; `origin` says what it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .backbones import Backbone
from .coefficients import LOWER, UPPER, coefficient_space
from .compact_text import CompactTextError, Rule, fitting, write_number, write_rules
from .preset_metadata import MAX_TEXT, MAX_WEIGHT, Member, Preset
from .presets import check_preset, describe_backbone

_MEMBER = re.compile(r"member(\d{1,3})")
_WEIGHT = "weight"


class EditingError(ValueError):
    """What was asked for cannot be made of these presets."""


@dataclass(frozen=True)
class Conversion:
    """A preset at another granularity, and how far it is from the one it was made from."""

    preset: Preset
    difference: float  # the largest between a branch's gain before and after; 0 where it is exact
    branch: str  # where that is, "double.3.attention.image"; "" where it is exact


def plain_preset(
    backbone: Backbone, granularity: str, base_model: str = "", fingerprint: str = ""
) -> Preset:
    """A preset of ones, which is the plain model. Raises CoefficientError for no granularity."""
    space = coefficient_space(backbone, granularity)
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity=granularity,
        members=(Member(space.named(space.identity)),),
        title=base_model,
        base_model=base_model,
        fingerprint=fingerprint,
    )


def edit_preset(preset: Preset, rules: Sequence[Rule]) -> Preset:
    """The preset after all rules; where they change nothing, the preset itself.

    A rule acts on every member, or on the second alone as `member2.double.0=0.8`;
    `member2.weight=0.5` sets a weight. Raises CompactTextError for a rule that fits nothing or
    leads out of −1…2 (weights: −10…10).
    """
    if not rules:
        return preset
    coefficients = [dict(member.coefficients) for member in preset.members]
    weights = [member.weight for member in preset.members]
    last: dict[tuple[int, str], Rule] = {}
    for rule in rules:
        chosen, rest = _members_meant(rule, len(preset.members))
        for m in chosen:
            if rest == (_WEIGHT,):
                if len(preset.members) == 1 and rest == rule.parts:
                    raise CompactTextError(
                        f"The rule {rule.text!r} is about weights, and the preset has one member, "
                        "which needs none: leave it out, or name the member, as member1.weight."
                    )
                weights[m] = _changed(weights[m], rule)
                last[m, _WEIGHT] = rule
                continue
            for name in fitting(rest, coefficients[m], rule.text):
                coefficients[m][name] = _changed(coefficients[m][name], rule)
                last[m, name] = rule
    for (m, name), rule in last.items():
        if name == _WEIGHT:
            _check_bounds(weights[m], -MAX_WEIGHT, MAX_WEIGHT, f"member{m + 1}.weight", rule)
        else:
            _check_bounds(coefficients[m][name], LOWER, UPPER, name, rule)
    members = tuple(map(Member, coefficients, weights))
    if members == preset.members:
        return preset
    written = ", ".join(rule.text for rule in rules)
    return replace(
        preset,
        members=members,
        title=_short(f"{preset.title or 'preset'}, edited"),
        origin=_short(f"{_called(preset)} by {written}"),
        rewards=(),
        diversity=None,
        prompts=None,
        thumbnail=b"",
    )


def preset_text(preset: Preset) -> str:
    """The preset as compact text: `edit_preset` makes it of a preset of ones with these members."""
    model = describe_backbone(preset.family, preset.blocks)
    lines = [f"# {model}, granularity {preset.granularity}; what is not named is 1"]
    for number, member in enumerate(preset.members, 1):
        prefix = f"member{number}." if preset.is_ensemble else ""
        if preset.is_ensemble:
            lines.append(f"{prefix}{_WEIGHT}={write_number(member.weight)}")
        lines += [prefix + rule for rule in write_rules(member.coefficients)]
    return "\n".join(lines)


def blend_presets(presets: Sequence[Preset], weights: Sequence[float]) -> Preset:
    """The weighted mean of presets for one model, coefficient by coefficient; weights >= 0.

    Equal weights average. Guided members are blended each with its like, and so are their weights.
    Raises EditingError where presets do not match or no weight is above 0.
    """
    parts = [pair for pair in zip(presets, weights, strict=True) if pair[1] != 0.0]
    if not parts or any(weight < 0.0 for _, weight in parts):
        raise EditingError(
            "The blend has no weight above 0, or one below: give at least one preset some weight, "
            "and none a negative one."
        )
    presets, weights = [preset for preset, _ in parts], [weight for _, weight in parts]
    total, first = sum(weights), presets[0]
    for number, other in enumerate(presets[1:], 2):
        _check_alike(first, other, number)
    shares = [weight / total for weight in weights]
    members = []
    for alike in zip(*(preset.members for preset in presets), strict=True):
        blended = {
            name: _float32(
                sum(s * one.coefficients[name] for s, one in zip(shares, alike, strict=True))
            )
            for name in first.members[0].coefficients
        }
        weight = _float32(sum(share * one.weight for share, one in zip(shares, alike, strict=True)))
        members.append(Member(blended, weight))
    title = " + ".join(
        f"{share:.3g} × {preset.title or 'preset'}"
        for share, preset in zip(shares, presets, strict=True)
    )
    shared = dict(first.sampling)
    for other in presets[1:]:
        shared = {
            name: value
            for name, value in shared.items()
            if name in other.sampling and other.sampling[name] == value
        }
    return replace(
        first,
        members=tuple(members),
        title=_short(title),
        base_model=_common([preset.base_model for preset in presets]),
        fingerprint=_common([preset.fingerprint for preset in presets]),
        licence=_short("; ".join(dict.fromkeys(p.licence for p in presets if p.licence))),
        origin=_short(f"a blend, {title}"),
        sampling=shared,
        rewards=(),
        diversity=None,
        prompts=None,
        thumbnail=b"",
    )


def convert_preset(preset: Preset, backbone: Backbone, granularity: str) -> Conversion:
    """The preset at another granularity of the same model.

    A finer one copies each coefficient to those it becomes, which changes nothing. A coarser one
    takes the mean of the gains that share a coefficient. Raises PresetError for a preset of another
    model.
    """
    found, vectors = check_preset(preset, backbone)
    gains = found.expand(vectors)  # [M, T]
    space = coefficient_space(backbone, granularity)
    groups = np.asarray(space.tap_index)
    means = np.stack([gains[:, groups == i].mean(axis=1) for i in range(len(space.names))], axis=1)
    rows = means.astype(np.float32).astype(np.float64)
    differences = np.abs(space.expand(rows) - gains.astype(np.float32)).max(axis=0)  # [T]
    worst = int(differences.argmax())
    exact = bool(differences[worst] == 0.0)
    members = tuple(
        Member(space.named(row), member.weight)
        for row, member in zip(rows, preset.members, strict=True)
    )
    converted = replace(preset, granularity=granularity, members=members)
    if not exact:
        converted = replace(
            converted,
            title=_short(f"{preset.title or 'preset'}, by {granularity}"),
            origin=_short(f"{_called(preset)}, from {preset.granularity} to {granularity}"),
            rewards=(),
            diversity=None,
            prompts=None,
            thumbnail=b"",
        )
    branch = "" if exact else backbone.taps[worst].name
    return Conversion(converted, float(differences[worst]), branch)


def _members_meant(rule: Rule, members: int) -> tuple[Sequence[int], tuple[str, ...]]:
    """Whose coefficients a rule is about, and its pattern without the member."""
    found = _MEMBER.fullmatch(rule.parts[0])
    if found is None:
        return range(members), rule.parts
    number = int(found[1])
    if not 1 <= number <= members:
        raise CompactTextError(
            f"The rule {rule.text!r} is about member {number}, and the preset has {members}: "
            "name a member that it has, or leave the member out."
        )
    return (number - 1,), rule.parts[1:] or ("*",)


def _changed(value: float, rule: Rule) -> float:
    return _float32(value * rule.value if rule.multiplies else rule.value)


def _check_bounds(value: float, lower: float, upper: float, name: str, rule: Rule) -> None:
    if not lower <= value <= upper:
        raise CompactTextError(
            f"The rule {rule.text!r} makes {name} {value:.6g}, outside {lower:g}…{upper:g}: "
            "bring it inside."
        )


def _check_alike(first: Preset, other: Preset, number: int) -> None:
    """Whether a preset can be blended with the first; EditingError with the mend where not."""
    for what, one, two, mend in (
        (
            "is for",
            describe_backbone(first.family, first.blocks),
            describe_backbone(other.family, other.blocks),
            "blend presets of one model",
        ),
        (
            "has the granularity",
            first.granularity,
            other.granularity,
            "bring it to the first one's with Convert Calibri Preset",
        ),
        ("has the guidance", first.guidance, other.guidance, "blend presets that guide alike"),
        (
            "has coefficients such as",
            *_unshared(first.members[0].coefficients, other.members[0].coefficients),
            "blend presets of one model",
        ),
    ):
        if one != two:
            raise EditingError(f"Preset {number} {what} {two} and the first one {one}: {mend}.")
    if first.guidance is None and max(len(first.members), len(other.members)) > 1:
        raise EditingError(
            "A preset of the blend is an ensemble, whose members stand in no order that another's "
            "would match: blend presets of one member."
        )


def _unshared(one: Mapping[str, float], two: Mapping[str, float]) -> tuple[str, str]:
    """A name that only each has; equal where they have the same names."""
    return min(one.keys() - two.keys(), default=""), min(two.keys() - one.keys(), default="")


def _common(values: Sequence[str]) -> str:
    """The value, where all have the same."""
    return values[0] if len(set(values)) == 1 else ""


def _called(preset: Preset) -> str:
    return repr(preset.title) if preset.title else "a preset"


def _float32(value: float) -> float:
    with np.errstate(over="ignore"):  # out of bounds, which is said in a sentence
        return float(np.float32(value))


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + " …"
