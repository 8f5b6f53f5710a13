"""What a comparison says in numbers: means, paired gains, diversity, and steps saved.

All intervals are of 95 % over prompts (`selection.py`); the images of a prompt are averaged first.
`comparison_words.py` says the numbers in sentences, `figure_comparison.py` draws them,
`comparison_html.py` makes a page of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .comparison import Comparison, Setting
from .comparison_course import Cell, Cells
from .configuration import library_versions
from .diversity import diversity_ratio
from .evaluation import Floats
from .presets import Preset
from .selection import mean_interval

REPORT_VERSION = 1


def about_presets(names: Sequence[str], presets: Sequence[Preset]) -> list[dict[str, Any]]:
    """What a report's `about` tells of its presets, by the names of their variants."""
    return [
        {
            "name": name,
            "title": preset.title,
            "found on": preset.base_model,
            "found with": dict(preset.sampling),
            "members": len(preset.members),
            "guided": preset.guidance is not None,
        }
        for name, preset in zip(names, presets, strict=True)
    ]


def steps_found_at(preset: Preset) -> int | None:
    """The steps that a preset was found with, where it says so."""
    steps = preset.sampling.get("steps")
    return steps if isinstance(steps, int) else None


def shown_cells(
    settings: Sequence[Setting], variants: int, found_at: int | None = None
) -> tuple[tuple[int, int], ...]:
    """The grid's rows: all variants at one setting, then the plain model at the most steps.

    The setting is chosen before anything is drawn: among those that differ from the first in steps
    alone the one nearest to `found_at`, the steps that the first preset was found with, else the
    one of the fewest steps.
    """
    alike = min(_groups(settings), key=min)
    wanted = 0 if found_at is None else found_at
    here = min(alike, key=lambda number: abs(settings[number].steps - wanted))
    most = max(alike, key=lambda number: settings[number].steps)
    rows = [(variant, here) for variant in range(variants)]
    return tuple(rows if most == here else [*rows, (0, most)])


def build_comparison(
    comparison: Comparison, cells: Cells, about: Mapping[str, Any]
) -> dict[str, Any]:
    """All numbers as JSON values; rewards in their own units, seconds and NFE for each image.

    Keys: report_version, about (the host's own words on model, presets and versions), variants,
    rewards, settings, groups (settings that differ in steps alone, ascending), prompts,
    images_per_prompt, seed, shown (the grid's rows), cells, equal_best, versions. A cell has
    variant, setting, nfe, seconds, rewards by name (mean, low, high, gain over plain at the same
    setting, scores [P][S]) and diversity (mean, low, high, ratio to plain, by_prompt; None for one
    image a prompt). Variants and settings are named by their places in the lists. An entry of
    equal_best: see `_equal_best`.
    """
    groups = _groups(comparison.settings)
    return {
        "report_version": REPORT_VERSION,
        "about": dict(about),
        "variants": list(comparison.variants),
        "rewards": list(comparison.rewards),
        "settings": [asdict(setting) for setting in comparison.settings],
        "groups": groups,
        "prompts": list(comparison.prompts),
        "images_per_prompt": comparison.images_per_prompt,
        "seed": comparison.seed,
        "shown": [list(cell) for cell in comparison.shown],
        "cells": [
            {
                "variant": variant,
                "setting": setting,
                "nfe": cell.nfe,
                "seconds": cell.seconds,
                "rewards": {
                    name: _reward(cell, cells[0, setting], name) for name in comparison.rewards
                },
                "diversity": _diversity(cell, cells[0, setting]),
            }
            for (variant, setting), cell in cells.items()
        ],
        "equal_best": [
            _equal_best(cells, variant, number, group, reward)
            for variant in range(1, len(comparison.variants))
            for number, group in enumerate(groups)
            for reward in comparison.rewards
            if len(group) > 1
        ],
        "versions": library_versions(),
    }


def _groups(settings: Sequence[Setting]) -> list[list[int]]:
    """Settings that differ in steps alone, by their places, in ascending order of steps."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, setting in enumerate(settings):
        others = {name: value for name, value in asdict(setting).items() if name != "steps"}
        alike.setdefault(tuple(others.values()), []).append(number)
    return [sorted(group, key=lambda number: settings[number].steps) for group in alike.values()]


def _by_prompt(cell: Cell, reward: str) -> Floats:
    return np.asarray(cell.scores[reward].mean(axis=1), dtype=np.float64)


def _reward(cell: Cell, plain: Cell, name: str) -> dict[str, Any]:
    values = _by_prompt(cell, name)
    gain = mean_interval(values - _by_prompt(plain, name))
    return {
        **asdict(mean_interval(values)),
        "gain": None if cell is plain else asdict(gain),
        "scores": cell.scores[name].tolist(),
    }


def _diversity(cell: Cell, plain: Cell) -> dict[str, Any] | None:
    if cell.diversity is None or plain.diversity is None:
        return None
    ratio = None if cell is plain else diversity_ratio(cell.diversity, plain.diversity)
    return {
        **asdict(mean_interval(cell.diversity)),
        "ratio": None if ratio is None else asdict(ratio),
        "by_prompt": cell.diversity.tolist(),
    }


def _equal_best(
    cells: Cells, variant: int, number: int, group: list[int], reward: str
) -> dict[str, Any]:
    """Where a preset reaches the plain model's best mean over the steps of a group.

    `best`: the setting of the plain model's highest mean, which is the highest of several and so
    likelier too high than too low. `reached`: the setting of the fewest steps at which the preset's
    mean is at least that, None where it is at none; `difference` is the preset's there less the
    plain model's best, paired, and `excludes_worse` whether its interval has no negative number.
    """
    plain = {setting: _by_prompt(cells[0, setting], reward) for setting in group}
    best = max(group, key=lambda setting: float(plain[setting].mean()))
    preset = {setting: _by_prompt(cells[variant, setting], reward) for setting in group}
    reached = next((s for s in group if preset[s].mean() >= plain[best].mean()), None)
    found: dict[str, Any] = {
        "variant": variant,
        "group": number,
        "reward": reward,
        "best": best,
        "best_mean": float(plain[best].mean()),
        "reached": reached,
        "difference": None,
        "excludes_worse": False,
    }
    if reached is not None:
        difference = mean_interval(preset[reached] - plain[best])
        found.update(difference=asdict(difference), excludes_worse=difference.low >= 0)
    return found
