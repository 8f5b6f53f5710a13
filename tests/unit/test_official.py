"""The official code's flat vectors: what each position means, both ways, in every layout.

The shapes and numbers of the first test were written by the official code itself.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from comfyui_calibri.calibri.official import (
    OfficialCheckpointError,
    OfficialLayout,
    as_run,
    dead_indices,
    flatten,
    ignored_coefficients,
    read_layout,
    unflatten,
)

FLUX_BLOCK = {"n_double": 2, "n_single": 3, "n_models": 1}
FLUX_LAYER_2 = FLUX_BLOCK | {"n_models": 2, "doubles_main": 8, "singles": 6, "total": 16}
FLUX_GATE = FLUX_BLOCK | {"doubles_main": 4, "doubles_ctx": 4, "singles": 3, "total": 12}
FLUX_BLOCK |= {"doubles_main": 2, "singles": 3, "total": 6}
SD3 = {"n_blocks": 3, "n_context": 2, "n_attn2": 0, "attn2": 0, "n_models": 2}
SD35_LARGE_2 = SD3 | {"main": 12, "context": 8, "total": 22}
SD35_MEDIUM = {"n_blocks": 4, "n_context": 3, "n_attn2": 2, "attn2": 2, "n_models": 1}
SD35_MEDIUM |= {"main": 8, "context": 6, "total": 17}
QWEN = {"total": 13, "n_models": 1, "n_blocks": 3}

# For each position before the weights its member and name; "-" where nothing acts.
POSITIONS = [
    (FLUX_BLOCK, "0:double.0 0:double.1 0:single.0 0:single.1 0:single.2"),
    (
        FLUX_LAYER_2,
        "0:double.0.attention 0:double.0.mlp 0:double.1.attention 0:double.1.mlp "
        "1:double.0.attention 1:double.0.mlp 1:double.1.attention 1:double.1.mlp "
        "0:single.0.fused 0:single.1.fused 0:single.2.fused "
        "1:single.0.fused 1:single.1.fused 1:single.2.fused",
    ),
    (
        FLUX_GATE,
        "0:double.0.attention.image 0:double.0.mlp.image "
        "0:double.1.attention.image 0:double.1.mlp.image "
        "0:double.0.attention.text 0:double.0.mlp.text "
        "0:double.1.attention.text 0:double.1.mlp.text "
        "0:single.0.fused.joint 0:single.1.fused.joint 0:single.2.fused.joint",
    ),
    (
        SD35_MEDIUM,
        "0:joint.0.attention.image 0:joint.0.mlp.image 0:joint.1.attention.image "
        "0:joint.1.mlp.image 0:joint.2.attention.image 0:joint.2.mlp.image "
        "0:joint.3.attention.image 0:joint.3.mlp.image "
        "0:joint.0.attention.text 0:joint.0.mlp.text 0:joint.1.attention.text "
        "0:joint.1.mlp.text 0:joint.2.attention.text 0:joint.2.mlp.text "
        "0:joint.0.attention2.image 0:joint.1.attention2.image",
    ),
    (
        SD35_LARGE_2,
        "0:joint.0.attention.image 0:joint.0.mlp.image 0:joint.1.attention.image "
        "0:joint.1.mlp.image 0:joint.2.attention.image 0:joint.2.mlp.image "
        "1:joint.0.attention.image 1:joint.0.mlp.image 1:joint.1.attention.image "
        "1:joint.1.mlp.image 1:joint.2.attention.image 1:joint.2.mlp.image "
        "0:joint.0.attention.text 0:joint.0.mlp.text 0:joint.1.attention.text 0:joint.1.mlp.text "
        "1:joint.0.attention.text 1:joint.0.mlp.text 1:joint.1.attention.text 1:joint.1.mlp.text",
    ),
    (
        QWEN,
        "0:block.0.attention.image 0:block.0.attention.text - - "
        "0:block.1.attention.image 0:block.1.attention.text - - 0:block.2.attention.image - - -",
    ),
]


@pytest.mark.parametrize(("shapes", "positions"), POSITIONS)
def test_every_position_has_its_name(shapes: dict[str, int], positions: str) -> None:
    layout = read_layout(shapes)
    # No value is 1, which is what a dead coefficient comes out as.
    flat = [2.0 + i for i in range(shapes["total"])]
    members, weights = unflatten(layout, flat)
    found = {
        f"{m}:{name}": value for m, member in enumerate(members) for name, value in member.items()
    }
    alive = {name: value for name, value in found.items() if value != 1.0}
    expected = {name: 2.0 + i for i, name in enumerate(positions.split()) if name != "-"}
    assert alive == expected
    assert weights == flat[-shapes["n_models"] :]


def test_coefficients_that_are_dead_in_the_official_code_do_not_wake_up() -> None:
    layout = read_layout(QWEN)
    assert dead_indices(layout) == [2, 3, 6, 7, 9, 10, 11]
    (member,), _ = unflatten(layout, [0.5] * 13)
    ones = {name for name, value in member.items() if value == 1.0}
    # Nothing reads the last block's text, so its branches have no coefficients with us.
    assert ones == {f"block.{i}.mlp.image" for i in range(3)} | {
        f"block.{i}.mlp.text" for i in range(2)
    }
    assert ones == set(ignored_coefficients(layout))
    assert len(member) == 3 * 2 + 2 * 2


@pytest.mark.parametrize("shapes", [FLUX_BLOCK, FLUX_LAYER_2, FLUX_GATE, SD35_MEDIUM, SD35_LARGE_2])
def test_nothing_is_dead_in_flux_and_sd3(shapes: dict[str, int]) -> None:
    assert dead_indices(read_layout(shapes)) == []


@pytest.mark.parametrize(
    ("shapes", "family", "granularity", "blocks", "second"),
    [
        (FLUX_BLOCK, "flux", "block", {"double": 2, "single": 3}, 0),
        (FLUX_LAYER_2, "flux", "layer", {"double": 2, "single": 3}, 0),
        (FLUX_GATE, "flux", "gate", {"double": 2, "single": 3}, 0),
        (SD35_MEDIUM, "sd3", "gate", {"joint": 4}, 2),
        (SD35_LARGE_2, "sd3", "gate", {"joint": 3}, 0),
        (QWEN, "qwen-image", "gate", {"block": 3}, 0),
    ],
)
def test_family_and_granularity_follow_from_shapes(
    shapes: dict[str, int], family: str, granularity: str, blocks: dict[str, int], second: int
) -> None:
    layout = read_layout(shapes)
    assert (layout.family, layout.granularity, layout.blocks) == (family, granularity, blocks)
    assert (layout.members, layout.total) == (shapes["n_models"], shapes["total"])
    assert layout.second_attentions == second
    assert layout.shapes == shapes


DOUBLES = {"n_double": 19, "n_single": 38, "singles": 38}
MEDIUM = {"n_blocks": 24, "n_context": 23, "n_attn2": 13, "main": 48, "context": 46, "attn2": 13}
LARGE = {"n_blocks": 38, "n_context": 37, "n_attn2": 0, "main": 76, "context": 74, "attn2": 0}


@pytest.mark.parametrize(
    ("shapes", "count"),
    [
        (DOUBLES | {"doubles_main": 19}, 57),
        (DOUBLES | {"doubles_main": 38}, 76),
        (DOUBLES | {"doubles_main": 38, "doubles_ctx": 38}, 114),
        (MEDIUM, 107),
        (LARGE, 150),
        ({"n_blocks": 60}, 240),
    ],
)
def test_published_sizes(shapes: dict[str, int], count: int) -> None:
    layout = read_layout(shapes | {"n_models": 1, "total": count + 1})
    assert layout.total == count + 1


LAYOUTS = [
    *(
        OfficialLayout("flux", granularity, members, {"double": 2, "single": 3})
        for granularity, members in product(("block", "layer", "gate"), (1, 2, 3))
    ),
    *(
        OfficialLayout("sd3", "gate", members, {"joint": blocks}, second)
        for members, (blocks, second) in product(
            (1, 2, 3), ((1, ()), (3, ()), (3, (0,)), (4, (0, 1, 2, 3)), (4, (1, 3)))
        )
    ),
    *(
        OfficialLayout("qwen-image", "gate", members, {"block": blocks})
        for members, blocks in product((1, 2, 3), (1, 3))
    ),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_round_trips_in_every_layout(layout: OfficialLayout) -> None:
    assert read_layout(layout.shapes, layout.second_attention_blocks) == layout
    flat = [2.0 + i for i in range(layout.total)]
    members, weights = unflatten(layout, flat)
    assert len({tuple(member) for member in members}) == 1
    alive = [v for member in members for v in member.values() if v != 1.0] + weights
    dead = dead_indices(layout)
    assert sorted(alive) == [v for i, v in enumerate(flat) if i not in dead]
    again = flatten(layout, members, weights)
    assert again == [1.0 if i in dead else v for i, v in enumerate(flat)]
    assert unflatten(layout, again) == (members, weights)


def test_second_attention_in_other_blocks_than_the_first() -> None:
    (member,), _ = unflatten(read_layout(SD35_MEDIUM, (1, 3)), [float(i) for i in range(17)])
    assert (member["joint.1.attention2.image"], member["joint.3.attention2.image"]) == (14, 15)
    with pytest.raises(OfficialCheckpointError, match=r"second attention in 2 blocks but .* has 3"):
        read_layout(SD35_MEDIUM, (0, 1, 2))


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({}, r"shapes \(nothing\) are those of no model of the official code"),
        ({"total": 4, "n_models": 1, "layers": 3}, "layers, n_models, total.* of no model"),
        (QWEN | {"main": 3}, "of no model"),
        (QWEN | {"total": 12}, "contradict themselves: total is 12 where .* make 13"),
        (QWEN | {"n_models": 0}, "n_models = 0, not a whole number from 1 to 64"),
        (QWEN | {"n_models": 65}, "n_models = 65"),
        (QWEN | {"n_models": True}, "n_models = True"),
        (QWEN | {"n_blocks": 3.0}, "n_blocks = 3.0"),
        (QWEN | {"n_blocks": "3"}, "n_blocks = '3'"),
        (QWEN | {"n_blocks": 10**9}, "n_blocks = 1000000000"),
        (FLUX_BLOCK | {"n_single": 0, "singles": 0}, "n_single = 0"),
        (FLUX_BLOCK | {"doubles_main": 3}, "doubles_main is 3 where .* make 4"),
        (FLUX_LAYER_2 | {"singles": 3}, "singles is 3 where .* make 6"),
        (FLUX_GATE | {"doubles_ctx": 0}, "doubles_ctx is 0 where .* make 4"),
        (SD35_MEDIUM | {"n_context": 4, "context": 8}, "n_context is 4 where .* make 3"),
        (SD35_MEDIUM | {"n_attn2": 5}, "n_attn2 = 5, not a whole number from 0 to 4"),
        (SD35_MEDIUM | {"attn2": 4}, "attn2 is 4 where .* make 2"),
        (SD35_LARGE_2 | {"main": [12]}, r"main is \[12\] where"),
    ],
)
def test_shapes_that_cannot_be(shapes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OfficialCheckpointError, match=f"{problem}.*: use|{problem}.*; use"):
        read_layout(shapes)


def test_qwen_checkpoints_of_october_2025_count_their_blocks_numbers_too() -> None:
    assert read_layout(QWEN | {"blocks": 12}) == read_layout(QWEN)
    with pytest.raises(OfficialCheckpointError, match=r"blocks is 3 where .* make 12"):
        read_layout(QWEN | {"blocks": 3})


@pytest.mark.parametrize(
    ("shapes", "weights", "guided", "plain", "acting"),
    [
        (SD35_LARGE_2, (3.0, 0.0), True, {1}, [3.0, 1.0]),
        (SD35_LARGE_2, (0.0, 0.0), True, {0, 1}, [1.0, 1.0]),
        (SD35_LARGE_2, (3.0, 0.0), False, set(), [3.0, 0.0]),
        (SD35_LARGE_2, (0.0, 0.0), False, {0}, [1.0, 0.0]),
        (QWEN, (0.0,), False, {0}, [1.0]),
        (FLUX_LAYER_2, (3.0, 0.0), True, set(), [3.0, 0.0]),
        (FLUX_LAYER_2, (0.0, 0.0), False, set(), [0.0, 0.0]),
    ],
)
def test_weights_of_exactly_0(
    shapes: dict[str, int], weights: tuple[float, ...], guided: bool, plain: set[int], acting: Any
) -> None:
    layout = read_layout(shapes)
    members, _ = unflatten(layout, [0.5] * layout.total)
    found, found_weights = as_run(layout, members, weights, guided)
    assert found_weights == acting
    for number, member in enumerate(found):
        expected = dict.fromkeys(members[0], 1.0) if number in plain else members[number]
        assert member == expected


@pytest.mark.parametrize("length", [0, 12, 14])
def test_vectors_of_another_length(length: int) -> None:
    with pytest.raises(OfficialCheckpointError, match=f"has {length} numbers where .* need 13"):
        unflatten(read_layout(QWEN), [1.0] * length)


def test_members_that_do_not_fit_the_layout() -> None:
    layout = read_layout(FLUX_BLOCK)
    (member,), weights = unflatten(layout, [1.0] * 6)
    with pytest.raises(OfficialCheckpointError, match="1 members but 2 members and 1 weights"):
        flatten(layout, [member, member], weights)
    with pytest.raises(OfficialCheckpointError, match=r"no place for the coefficient 'double\.2'"):
        flatten(layout, [member | {"double.2": 1.0}], weights)
    del member["single.1"]
    with pytest.raises(OfficialCheckpointError, match=r"lacks the coefficient 'single\.1'"):
        flatten(layout, [member], weights)
