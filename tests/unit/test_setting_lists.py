"""Settings from compact text, and a sentence that names the list for what cannot be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from comfyui_calibri.calibri.comparison import Setting
from comfyui_calibri.calibri.setting_lists import (
    MAX_SETTINGS,
    SettingListError,
    parse_cfg,
    parse_names,
    parse_settings,
    parse_sizes,
    parse_steps,
)


def test_lists_are_read_however_they_are_separated() -> None:
    assert parse_steps("30, 2 4;8\n15,") == (2, 4, 8, 15, 30)
    assert parse_cfg("4.5,1 , 2e0, 1.0") == (1.0, 2.0, 4.5)
    assert parse_sizes("512x512, 768 x 512\n768X512 64×64") == ((512, 512), (768, 512), (64, 64))
    assert parse_names(" euler, heun euler") == ("euler", "heun")
    assert parse_names("") == ()


def test_settings_combine_and_steps_stand_together() -> None:
    found = parse_settings("4,2", "1", ("euler", "heun", "euler"), "simple", "64x32")
    assert found == tuple(
        Setting(steps, 1.0, sampler, "simple", 64, 32)
        for sampler in ("euler", "heun")
        for steps in (2, 4)
    )


@pytest.mark.parametrize(
    ("parse", "text", "problem"),
    [
        (parse_steps, "", "steps is empty: write whole numbers from 1 to 200"),
        (parse_steps, "2, many", "steps has 'many': write"),
        (parse_steps, "0", "steps has '0'"),
        (parse_steps, "201", "steps has '201'"),
        (parse_steps, "2.5", "steps has '2.5'"),
        (parse_steps, "2-8", "steps has '2-8'"),
        (parse_steps, "²", "steps has '²'"),
        (parse_steps, "9" * 5000, "steps has '9999"),
        (parse_cfg, " , ", "cfg is empty"),
        (parse_cfg, "nan", "cfg has 'nan'"),
        (parse_cfg, "-1", "cfg has '-1'"),
        (parse_cfg, "31", "cfg has '31'"),
        (parse_sizes, "512", "sizes has '512': write width x height"),
        (parse_sizes, "500x512", "sizes has '500x512'"),
        (parse_sizes, "8192x512", "sizes has '8192x512'"),
        (parse_sizes, "", "sizes is empty"),
    ],
)
def test_what_cannot_be_read_is_named(
    parse: Callable[[str], object], text: str, problem: str
) -> None:
    with pytest.raises(SettingListError) as refused:
        parse(text)
    assert str(refused.value).startswith(problem)
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 250


def test_too_many_settings_are_a_mistake() -> None:
    steps = ",".join(map(str, range(1, MAX_SETTINGS + 2)))
    with pytest.raises(SettingListError, match="combine to 101 settings"):
        parse_settings(steps, "1", ("euler",), "simple", "64x64")
