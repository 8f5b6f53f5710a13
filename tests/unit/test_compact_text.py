"""Coefficients as compact text: what rules mean, what is wrong with others, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from comfyui_calibri.calibri.compact_text import CompactTextError, fitting, parse_rules, write_rules

from .exact_run import COEFFICIENTS

NAMES = COEFFICIENTS.names


def meant(pattern: str) -> list[str]:
    (rule,) = parse_rules(f"{pattern}=1")
    return fitting(rule.parts, NAMES, rule.text)


def test_a_pattern_is_a_name_part_by_part() -> None:
    assert meant("double.1.mlp.text") == ["double.1.mlp.text"]
    assert meant("double.0.mlp") == ["double.0.mlp.image", "double.0.mlp.text"]
    assert meant("double.0-1.attention.image") == [
        "double.0.attention.image",
        "double.1.attention.image",
    ]
    assert meant("single.1-2") == ["single.1.fused.joint", "single.2.fused.joint"]
    assert meant("*.*.mlp") == [name for name in NAMES if ".mlp." in name]
    assert meant("*") == list(NAMES)


@pytest.mark.parametrize(
    ("text", "parts", "value", "multiplies"),
    [
        ("single.*=1.1", ("single", "*"), 1.1, False),
        ("single.* *= 1.1", ("single", "*"), 1.1, True),
        ("single.**=1.1", ("single", "*"), 1.1, True),
        ("single*=1.1", ("single",), 1.1, True),
        ("*=0.9", ("*",), 0.9, False),
        ("* *= 0.9", ("*",), 0.9, True),
        ("double.5.mlp.image*=0.9", ("double", "5", "mlp", "image"), 0.9, True),
        (" double.0-3 = -1e-1 ", ("double", "0-3"), -0.1, False),
    ],
)
def test_a_rule_sets_or_multiplies(text: str, parts: tuple, value: float, multiplies: bool) -> None:
    (rule,) = parse_rules(text)
    assert (rule.parts, rule.value, rule.multiplies) == (parts, value, multiplies)


def test_rules_stand_on_lines_or_between_commas_and_comments_are_left_out() -> None:
    text = "# by hand\n double.0=0.5, single.*=1.1,\r\n\n*=2 # all, really\n"
    assert [rule.text for rule in parse_rules(text)] == ["double.0=0.5", "single.*=1.1", "*=2"]
    assert parse_rules(" \n# nothing\n") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("double.0", "'double.0' is no rule: write name=value"),
        ("double.0=", "has '' where a number must be"),
        ("double.0=big", "has 'big' where a number must be"),
        ("double.0=nan", "where a number must be"),
        ("double.0=1e999", "where a number must be"),
        ("double.0==1", "is no rule"),
        ("=1", "an empty part"),
        ("double..0=1", "an empty part"),
        ("double.0-=1", "the part '0-'"),
        ("att*n=1", "the part 'att\\*n'"),
        ("double.3-1=1", "write 1-3"),
    ],
)
def test_what_is_no_rule_is_named_with_its_mend(text: str, says: str) -> None:
    with pytest.raises(CompactTextError, match=says):
        parse_rules(f"single.0=1\n{text}")


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("duoble.0.mlp.text", "nearest names are double.0.mlp.text"),
        ("double.7", "nearest names are double."),
        ("double.0.mlp.text.more", "nearest names are double.0.mlp.text"),
        ("attention", "fits no coefficient"),
        ("double.0-4", "goes to block 4, and the last one there is 1"),
        ("*.0-7", "goes to block 7, and the last one there is 2"),
    ],
)
def test_what_fits_nothing_names_what_is_near(pattern: str, says: str) -> None:
    with pytest.raises(CompactTextError, match=says):
        meant(pattern)


def read(rules: list[str]) -> dict[str, float]:
    named = dict.fromkeys(NAMES, 1.0)
    for rule in parse_rules("\n".join(rules)):
        named.update(dict.fromkeys(fitting(rule.parts, NAMES, rule.text), rule.value))
    return named


def test_shared_values_are_written_once() -> None:
    rules = ["double.0.attention=0.5", "double.*.mlp=0.8", "single.0-1=1.1"]
    assert write_rules(read(rules)) == rules
    assert write_rules(read(["single=-0.25"])) == ["single.*=-0.25"]
    assert write_rules(dict.fromkeys(NAMES, 1.0)) == []


def test_any_coefficients_are_read_back_as_the_same_float32() -> None:
    random = np.random.default_rng(0)
    for values in (
        random.uniform(-1, 2, (20, len(NAMES))),
        # Few different values, so that runs and shared endings come up in every way.
        random.choice([0.0, 0.8, 1.0], (200, len(NAMES))),
    ):
        for row in values.astype(np.float32).astype(float):
            named = dict(zip(NAMES, row.tolist(), strict=True))
            again = read(write_rules(named))
            assert {n: np.float32(v) for n, v in again.items()} == named
