"""What a person decides about a calibration, declared once: for the node's widgets, the options of
the command line and the settings file (`settings_file.py`).

Nothing heavy is imported: ComfyUI reads this when it starts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | int | float | bool

SAMPLING, SEARCH = "sampling", "search"


class SettingsError(ValueError):
    """A setting has a value that cannot work, or does not exist."""


@dataclass(frozen=True)
class Setting:
    """One of them; the type of `default` is the setting's. Ranges include their ends."""

    name: str
    section: str
    default: Value
    help: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    """Empty too where the host knows them, as samplers."""

    def checked(self, value: object) -> Value:
        """`value` as the setting's type. Raises SettingsError for another type or range."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        fits = type(value) is kind and (kind is not float or math.isfinite(value))  # type: ignore[arg-type]
        if fits and self.least is not None and self.most is not None:
            fits = self.least <= value <= self.most  # type: ignore[operator]
        if fits and self.choices:
            fits = value in self.choices
        if not fits:
            raise SettingsError(f"{self.name} is {value!r}: give {self._expected()}.")
        return value  # type: ignore[return-value]

    def _expected(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "a text"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.least:g} to {self.most:g}"


_SETTINGS = (
    Setting("negative", SAMPLING, "", "The negative prompt; unused at cfg 1."),
    Setting("sampler", SAMPLING, "euler", "As in KSampler."),
    Setting("scheduler", SAMPLING, "simple", "As in KSampler."),
    Setting("steps", SAMPLING, 15, "Fewer leave more to calibrate.", 1, 200),
    Setting("cfg", SAMPLING, 1.0, "Classifier-free guidance.", 0, 30),
    Setting("guidance", SAMPLING, 3.5, "As in FluxGuidance.", 0, 100),
    Setting("width", SAMPLING, 512, "Of each image, in pixels.", 16, 4096),
    Setting("height", SAMPLING, 512, "Of each image, in pixels.", 16, 4096),
    Setting(
        "granularity",
        SEARCH,
        "gate",
        "One coefficient for each block, layer or gate.",
        choices=("block", "layer", "gate"),
    ),
    Setting(
        "profile", SEARCH, "default", "default, or paper: CMA-ES.", choices=("default", "paper")
    ),
    Setting("generations", SEARCH, 60, "At most; raise it to go on.", 1, 100_000),
    Setting("seed", SEARCH, 0, "Of the search and of all its noise.", 0, 2**63 - 1),
    Setting("bucket_size", SEARCH, 0, "Images for a candidate; 0: as noise asks for.", 0, 1024),
    Setting("validate_every", SEARCH, 10, "Generations between two validations.", 1, 1000),
    Setting("members", SEARCH, 1, "Above 1 an ensemble is searched.", 1, 8),
    Setting("guided_members", SEARCH, False, "Two members in the place of cfg."),
    Setting("stop_early", SEARCH, True, "End the search once it promises little more."),
    Setting("keep_anyway", SEARCH, False, "Save the best though it beats the plain model not."),
)
SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _SETTINGS}


def widget(name: str) -> dict[str, Any]:
    """The default of a setting and, of a number, its range, as ComfyUI's inputs take them."""
    setting = SETTINGS[name]
    if setting.least is None or setting.most is None:
        return {"default": setting.default}
    kind = type(setting.default)
    return {"default": setting.default, "min": kind(setting.least), "max": kind(setting.most)}


@dataclass(frozen=True)
class ModelNames:
    """A model's files: paths, or names as ComfyUI's loaders list them; "" for what is not given."""

    checkpoint: str = ""
    diffusion_model: str = ""
    weight_dtype: str = ""
    """As in ComfyUI's Load Diffusion Model."""
    text_encoders: tuple[str, ...] = ()
    text_encoder_type: str = ""
    vae: str = ""
    preview_vae: str = ""


@dataclass(frozen=True)
class RunSettings:
    """All that makes a calibration; `values` has every setting of SETTINGS.

    Prompts are texts, or a file's name; without `held_out` a quarter of them is held out.
    """

    name: str = "run"
    model: ModelNames = field(default_factory=ModelNames)
    prompts: tuple[str, ...] | str = ()
    held_out: tuple[str, ...] | str = ()
    reward: str = ""
    other_rewards: tuple[str, ...] = ()
    start_from: str = ""
    """A preset's file."""
    values: Mapping[str, Value] = field(
        default_factory=lambda: {setting.name: setting.default for setting in _SETTINGS}
    )


def check_values(given: Mapping[str, object], section: str | None = None) -> dict[str, Value]:
    """Values by the names of settings, of one section or of all, each checked.

    Raises SettingsError, for an unknown name with the nearest known one.
    """
    known = [s.name for s in _SETTINGS if section in (None, s.section)]
    for name in given:
        if name not in known:
            raise SettingsError(unknown("setting", name, known))
    return {name: SETTINGS[name].checked(value) for name, value in given.items()}


def unknown(what: str, name: str, known: list[str]) -> str:
    """What to say of a name that there is not."""
    near = difflib.get_close_matches(name, known, 1)
    meant = f"{near[0]!r} may be meant" if near else f"there are {', '.join(known)}"
    return f"There is no {what} {name!r}: {meant}."
