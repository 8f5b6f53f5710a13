"""The settings of a comparison from compact text: steps "2, 4, 8", cfg "1, 3.5", sizes "512x512".

Lists are separated by commas, spaces or semicolons. What is named twice counts once; numbers come
back in ascending order, names and sizes as they were written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from itertools import product
from typing import TypeVar

from .comparison import Setting

MAX_STEPS = 200
MAX_CFG = 30.0
MIN_SIDE, MAX_SIDE, SIDE_UNIT = 16, 4096, 16  # pixels
MAX_SETTINGS = 100  # more are surely a mistake: each draws all prompts with every preset

T = TypeVar("T")


class SettingListError(ValueError):
    """A list of settings that cannot be read."""


def parse_settings(
    steps: str, cfg: str, samplers: Iterable[str], scheduler: str, sizes: str
) -> tuple[Setting, ...]:
    """All combinations, those that differ in steps alone beside one another.

    Raises SettingListError for a list that cannot be read and for more than `MAX_SETTINGS`.
    """
    groups = product(
        dict.fromkeys(samplers), parse_sizes(sizes), parse_cfg(cfg), parse_steps(steps)
    )
    settings = tuple(
        Setting(count, scale, sampler, scheduler, width, height)
        for sampler, (width, height), scale, count in groups
    )
    if not 0 < len(settings) <= MAX_SETTINGS:
        raise SettingListError(
            f"The lists of steps, cfg, samplers and sizes combine to {len(settings)} settings, and "
            f"1 to {MAX_SETTINGS} are possible: shorten them."
        )
    return settings


def parse_steps(text: str) -> tuple[int, ...]:
    """Step counts in 1 … `MAX_STEPS`. Raises SettingListError."""
    mend = f"write whole numbers from 1 to {MAX_STEPS}, such as 2, 4, 8, 15, 30"

    def read(word: str) -> int:
        steps = int(word) if re.fullmatch(r"\d{1,9}", word, re.ASCII) else 0
        if not 1 <= steps <= MAX_STEPS:
            raise SettingListError(f"steps has {word[:40]!r}: {mend}.")
        return steps

    return tuple(sorted(_read_list("steps", text, read, mend)))


def parse_cfg(text: str) -> tuple[float, ...]:
    """CFG scales in 0 … `MAX_CFG`. Raises SettingListError."""
    mend = f"write numbers from 0 to {MAX_CFG:g}, such as 1 or 2, 4.5 (1 is without guidance)"

    def read(word: str) -> float:
        try:
            scale = float(word)
        except ValueError:
            scale = math.nan
        if not 0 <= scale <= MAX_CFG:  # NaN is refused here too
            raise SettingListError(f"cfg has {word[:40]!r}: {mend}.")
        return scale + 0.0  # −0 is 0

    return tuple(sorted(_read_list("cfg", text, read, mend)))


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """(width, height) pairs in pixels, multiples of `SIDE_UNIT`. Raises SettingListError."""
    mend = (
        f"write width x height in pixels, multiples of {SIDE_UNIT} from {MIN_SIDE} to {MAX_SIDE}, "
        "such as 512x512, 768x512"
    )

    def read(word: str) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", word, re.ASCII)
        sides = (int(found[1]), int(found[2])) if found else (0, 0)
        if any(not MIN_SIDE <= side <= MAX_SIDE or side % SIDE_UNIT for side in sides):
            raise SettingListError(f"sizes has {word[:40]!r}: {mend}.")
        return sides

    return _read_list("sizes", re.sub(r"\s*([xX×])\s*", r"\1", text), read, mend)


def parse_names(text: str) -> tuple[str, ...]:
    """Names, none for an empty text."""
    return tuple(dict.fromkeys(_words(text)))


def _read_list(name: str, text: str, read: Callable[[str], T], mend: str) -> tuple[T, ...]:
    found = tuple(dict.fromkeys(read(word) for word in _words(text)))
    if not found:
        raise SettingListError(f"{name} is empty: {mend}.")
    return found


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,;\s]+", text) if word]
