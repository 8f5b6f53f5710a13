"""Taps are called what they are: attention where tokens meet, an MLP where they do not, image or
text by the input that their stream comes from.

Held against `dits/branch_origins.py`, which knows no modules. What nothing in a call tells is not
judged: "image" from what else is made of latents ("audio", "shape"), "attention" from "fused", what
"hint" and "inpainting" are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import pytest
from torch import nn

from comfyui_calibri.calibri.backbones import Tap, read_backbone

from .dits import CASES
from .dits.branch_origins import (
    ASKING,
    CONDITION,
    LATENTS,
    MEETING,
    PROMPT,
    Origin,
    Origins,
    inputs_marked,
)
from .dits.case import ALL, DitCase
from .dits.gains import gain_on, make_taps
from .dits.residual_additions import watching
from .test_backbones import blocks_of, first_difference, note

pytestmark = pytest.mark.oldest

# What streams are made of where it is not what their names say.
BOTH = frozenset({LATENTS, PROMPT})
STREAMS = {
    # Parts of one sequence, which holds both inputs: image and text cannot be told apart.
    "cogvideox": {"image": BOTH, "text": BOTH},
    "minimax-h3": {"image": BOTH, "text": BOTH, "audio": BOTH},
    # What describes the music is joined to the latents, channel by channel.
    "minimax-music-3": {"audio": BOTH},
    # Its picture is the prompt, and comes as a picture's latents too.
    "triposplat": {"image": BOTH},
}
# Calls without a prompt.
NO_PROMPT = ("Ideogram 4 without text",)
# Branch beside an attention -> what only one of the two has in it, and which one.
BESIDE_ATTENTION = {
    "attention2": (PROMPT, "attention"),
    "cross_attention": (ASKING, "cross_attention"),
}
JUDGED = [case for case in CASES if case.name in ("SD3.5", "FLUX.1", "Wan")]


def origins(case: DitCase, model: nn.Module) -> dict[Tap, list[Origin]]:
    """For the first tap of each name, the additions that it scales."""
    backbone, taps = read_backbone(model), make_taps(model)
    settings = {
        "restarts": case.restarts,
        "inner": case.inner_additions,
        "between": case.additions_between_blocks,
    }
    with watching(blocks_of(model, backbone), **settings, kind=Origins) as watched:
        assert isinstance(watched, Origins)
        with inputs_marked(model, watched):
            case.call(model, ALL)
    first: dict[tuple[str, str, str], Tap] = {}
    for tap in backbone.taps:
        if tap.block not in case.idle:
            first.setdefault((tap.block, tap.branch, tap.stream), tap)
    found: dict[Tap, list[Origin]] = {}
    for tap in first.values():
        with taps.scaled(gain_on(backbone, tap, 0.0)):
            without, _ = note(case, model, backbone)
        changed = first_difference(watched.found, without)
        assert changed is not None, tap.name
        own = {(watched.found[changed].block, watched.found[changed].index)} | {
            (now.block, now.index)
            for now, before in zip(without, watched.found, strict=True)
            if before.contribution.any() and not now.contribution.any()
        }
        found[tap] = [watched.origins[at] for at in own]
    return found


def misnamed(case: DitCase, found: dict[Tap, list[Origin]]) -> Iterator[str]:
    """What is wrong with the taps' names."""
    for tap, additions in found.items():
        beside = {
            other.branch
            for other in found
            if (other.block, other.stream) == (tap.block, tap.stream)
        }
        made_of = frozenset[str]().union(*(addition.contribution for addition in additions))
        stream = frozenset[str]().union(*(addition.stream for addition in additions))
        meets = MEETING in made_of
        if tap.branch == "mlp" and meets:
            yield f"{tap.name}: tokens meet in it"
        if ("attention" in tap.branch or tap.branch == "fused") and not meets:
            yield f"{tap.name}: no tokens meet in it"
        if tap.branch == "fused" and beside != {"fused"}:
            yield f"{tap.name}: not the only branch"
        for other, (label, reader) in BESIDE_ATTENTION.items():
            told = other in beside and tap.branch in ("attention", other)
            if told and (label in made_of) != (tap.branch == reader):
                yield f"{tap.name}: made of {sorted(made_of)}"
        wanted = {"joint": BOTH, "text": {PROMPT}, "siglip": {CONDITION}}.get(tap.stream, {LATENTS})
        wanted = STREAMS.get(case.family, {}).get(tap.stream, wanted)
        if case.name in NO_PROMPT:
            wanted = wanted - {PROMPT}
        if stream - {CONDITION} != wanted - {CONDITION} or not stream:
            yield f"{tap.name}: a stream of {sorted(stream)}"


def test_the_names_are_right(case: DitCase, model: nn.Module) -> None:
    assert not list(misnamed(case, origins(case, model)))


@pytest.mark.parametrize("case", JUDGED, indirect=True, ids=lambda case: case.name)
def test_two_names_of_a_block_that_are_swapped_are_seen(case: DitCase, model: nn.Module) -> None:
    found = origins(case, model)
    pairs = [(one, other) for one, other in combinations(found, 2) if one.block == other.block]
    assert pairs
    for one, other in pairs:
        names = {one: other, other: one}
        swapped = {
            replace(tap, branch=names.get(tap, tap).branch, stream=names.get(tap, tap).stream): at
            for tap, at in found.items()
        }
        assert list(misnamed(case, swapped)), f"{one.name} and {other.name}"
