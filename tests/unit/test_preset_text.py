"""Presets as text: nothing is lost, and nothing is claimed of numbers that were not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comfyui_calibri.calibri.preset_digest import digest_of
from comfyui_calibri.calibri.preset_metadata import Guidance, HeldOut, Member, Preset, RewardChange
from comfyui_calibri.calibri.preset_text import (
    CHANGED,
    PresetTextError,
    read_preset_text,
    write_preset_text,
)
from comfyui_calibri.calibri.presets import load_preset, save_preset
from comfyui_calibri.calibri.thumbnail import draw_thumbnail

NAMES = [
    *(f"double.{i}.{branch}" for i in range(3) for branch in ("attention.image", "mlp.image")),
    "double.0.attention.text",
    "double.2.attention.text",
    "single.0",
]


def preset() -> Preset:
    """Two guided members with odd float32 values, measured by two rewards."""
    values = np.random.default_rng(3).normal(1, 0.3, (2, len(NAMES))).astype(np.float32).tolist()
    return Preset(
        family="flux",
        blocks={"double": 3, "single": 1},
        granularity="gate",
        members=(
            Member(dict(zip(NAMES, values[0], strict=True)), 4.5),
            Member(dict(zip(NAMES, values[1], strict=True)), -3.5),
        ),
        guidance=Guidance(4.5),
        title="night: “soft” light\nsecond line",
        base_model="flux.safetensors",
        licence="CC0",
        sampling={"steps": 15, "cfg": 1.0, "sampler": "euler"},
        rewards=(RewardChange("ImageReward", 0.1, 0.4, 0.2, 0.4, 64, searched=True),),
        diversity=RewardChange("diversity", 0.5, 0.5, -0.1, 0.1, 64, searched=False),
        prompts=HeldOut(64, "abcd"),
    )


def test_a_preset_comes_back_from_its_text_to_the_last_bit() -> None:
    text = write_preset_text(preset())
    assert read_preset_text(text) == preset()
    # A blank at a line's end and other line ends are what mail and chats do.
    assert read_preset_text("\r\n".join(f"  {line} " for line in text.splitlines())) == preset()


def test_a_title_may_hold_what_ends_lines_elsewhere() -> None:
    odd = replace(preset(), title="one\u2028two\x85three")
    assert read_preset_text(write_preset_text(odd)).title == odd.title


def test_a_row_has_the_blocks_that_there_are() -> None:
    rows = [
        line.split(" =")[0] for line in write_preset_text(preset()).splitlines() if " =" in line
    ]
    assert rows[: len(rows) // 2] == [
        "double.0-2.attention.image",
        "double.0-2.mlp.image",
        "double.0.attention.text",
        "double.2.attention.text",
        "single.0",
    ]


def test_a_hundred_coefficients_take_little_space() -> None:
    names = [f"double.{i}.{b}.{s}" for i in range(25) for b in ("attention", "mlp") for s in "ab"]
    values = np.random.default_rng(1).normal(1, 0.3, 100).astype(np.float32).tolist()
    members = (Member(dict(zip(names, values, strict=True))),)
    assert len(write_preset_text(replace(preset(), members=members, guidance=None))) < 2200


def test_measurements_are_left_out_where_a_number_was_changed() -> None:
    changed = write_preset_text(preset()).replace("single.0 = ", "single.0 = 1.25 #", 1)
    with pytest.raises(PresetTextError, match="2 values for 1"):
        read_preset_text(changed)
    line = next(x for x in write_preset_text(preset()).splitlines() if x.startswith("single.0"))
    read = read_preset_text(write_preset_text(preset()).replace(line, "single.0 = 1.25", 1))
    assert read.members[0].coefficients["single.0"] == 1.25
    assert (read.rewards, read.diversity, read.prompts, read.origin) == ((), None, None, CHANGED)
    assert read.title == preset().title
    # Without its digest nothing says that the numbers are the measured ones.
    lines = write_preset_text(preset()).splitlines()
    read = read_preset_text("\n".join(x for x in lines if not x.startswith("digest")))
    assert read.rewards == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no preset"),
        ("hello there", "neither"),
        ("double.0=0.8", "Edit Calibri"),
        ("weight: 1\ndouble.0-2 = 1 1", "2 values for 3"),
        ("weight: 1\ndouble.0 = nan", "'nan'"),
        ("weight: 1\ndouble.0 = 1e999", "1e999"),
        ("weight: 1\ndouble.9-2 = 1", "9-2"),
        ("weight: 1\ndouble.0-99999 = 1", "0-99999"),
        ("weight: 1\ndouble.0 = 1\ndouble.0 = 1", "again"),
        ("weight: 1\ndouble.0 = 1\nweight: 1\ndouble.1 = 1", "different names"),
        ("weight: [1]\ndouble.0 = 1", "no number"),
        ("family: flux\nweight: 1\ndouble.0 = 1", "no JSON"),
        ("schema: 1\nweight: 1\ndouble.0 = 1", "lacks 'blocks'"),
        ("schema: 2\nweight: 1\ndouble.0 = 1", "schema is 2"),
        ("colour: 1\nschema: 1\nweight: 1\ndouble.0 = 1", "colour|lacks"),
        ("x" * (2**20 + 1), "too long"),
    ],
)
def test_what_is_no_preset_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(PresetTextError, match=said):
        read_preset_text(text)


def test_a_name_that_no_row_can_hold_is_refused() -> None:
    odd = replace(preset(), members=(Member({"double.0-2": 1.0}),), guidance=None)
    with pytest.raises(PresetTextError, match="share the preset as a file"):
        write_preset_text(odd)


def test_a_digest_is_of_what_a_preset_does() -> None:
    one = preset()
    renamed = replace(one, title="another", rewards=(), licence="")
    turned = replace(
        one,
        members=tuple(
            Member(dict(reversed(m.coefficients.items())), m.weight) for m in one.members
        ),
    )
    assert digest_of(one) == digest_of(renamed) == digest_of(turned)
    heavier = replace(one, members=(replace(one.members[0], weight=4.6), one.members[1]))
    others = [heavier, replace(one, guidance=Guidance(4.0)), replace(one, family="sd3")]
    assert len({digest_of(each) for each in (one, *others)}) == 4


def test_a_picture_is_kept_in_the_file_and_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (2, 8, 512, 640, 3), np.uint8)
    picture = draw_thumbnail(*noise)
    assert 1000 < len(picture) < 40_000  # noise is the worst there is
    file = tmp_path / "a.safetensors"
    save_preset(file, replace(preset(), thumbnail=picture))
    assert load_preset(file) == replace(preset(), thumbnail=picture)


@pytest.mark.parametrize("picture", [b"GIF89a", b"\xff\xd8\xff" + bytes(2**17)])
def test_a_picture_that_is_none_does_not_spoil_the_preset(tmp_path: Path, picture: bytes) -> None:
    save_preset(tmp_path / "a.safetensors", replace(preset(), thumbnail=picture))
    assert load_preset(tmp_path / "a.safetensors").thumbnail == b""
