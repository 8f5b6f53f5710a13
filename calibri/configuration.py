"""What one calibration run is, and whether a journal belongs to it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluation import Sample, samples
from .journal import Journal, JournalError

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace

_BUDGET = ("generations", "max_seconds", "stop_early")
# What is done with what the search found, and does not make it another run.
_ENDING = ("judges", "keep_anyway")
_LIBRARIES = ("numpy", "cma", "torch")


class RunConfigError(ValueError):
    """A run's configuration holds a value that cannot work."""


@dataclass(frozen=True)
class RunConfig:
    """What one calibration run is; all of it but the budget stays as it was when the run began.

    `judges` and `keep_anyway` may change too: they concern what is done with what was found. The
    budget is `generations` and `max_seconds`, the seconds that the search's batches took,
    without the final selection; the search ends with the generation in which the first of them is
    reached. With `stop_early` it may end before (`stopping.py`).
    """

    prompts: tuple[str, ...]
    """To search on."""
    validation_prompts: tuple[str, ...]
    """Held out from the search, at least two."""
    reward: str
    """Name of the reward that is maximised."""
    generations: int
    seed: int = 0
    profile: str = "default"
    bucket_size: int = 16
    """Images per candidate and generation; 0 to have them chosen from the noise (`pilot.py`), or
    the paper's 16 with its profile."""
    validate_every: int = 10
    """Generations."""
    images_per_prompt: int = 1
    """Of each held-out prompt, in every validation, the selection and the confirmation."""
    max_seconds: float | None = None
    stop_early: bool = False
    """Whether to end the search once its validations promise little more."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that say how images are made: model, sampler, steps, cfg, size ..."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """Who judges the choice beside `reward`, with the marks of their weights (`judging.py`)."""
    keep_anyway: bool = False
    """Whether to recommend the best of what was found even where it beats the plain model not."""

    def __post_init__(self) -> None:
        if self.bucket_size < 0:
            raise RunConfigError(
                f"bucket_size is {self.bucket_size}: give at least 1, or 0 to have it chosen."
            )
        for name in ("generations", "validate_every", "images_per_prompt"):
            if getattr(self, name) < 1:
                raise RunConfigError(f"{name} is {getattr(self, name)}: give at least 1.")
        if not self.prompts:
            raise RunConfigError("There are no prompts to search on: give at least one.")
        if len(self.validation_prompts) < 2:
            raise RunConfigError(
                f"There are {len(self.validation_prompts)} held-out prompts: give at least two, "
                "since the gain's interval is taken over prompts."
            )
        if shared := set(self.prompts) & set(self.validation_prompts):
            raise RunConfigError(
                f"{len(shared)} prompts are both searched on and held out, such as "
                f"{min(shared)!r}: take them out of one of the two lists."
            )

    @property
    def all_prompts(self) -> tuple[str, ...]:
        """What `Sample.prompt` indexes: the prompts searched on, then those held out."""
        return (*self.prompts, *self.validation_prompts)

    @property
    def ending(self) -> list[str]:
        """What is asked of its end: its judges, by name and weights, and whether to keep anyway."""
        judges = [f"{name} {mark}".rstrip() for name, mark in self.judges.items()]
        return [*judges, *(["keep anyway"] if self.keep_anyway else [])]

    def validation_samples(self) -> tuple[Sample, ...]:
        """The fixed samples of every validation."""
        return self._held_out("validation", 0)

    def selection_samples(self, last: int) -> tuple[Sample, ...]:
        """The samples that pick among the finalists of a search of `last` generations."""
        return self._held_out("selection", last)

    def confirmation_samples(self, last: int) -> tuple[Sample, ...]:
        """The samples that measure the pick's gain; also the ones for a before/after grid."""
        return self._held_out("confirmation", last)

    def _held_out(self, role: str, generation: int) -> tuple[Sample, ...]:
        # Image by image, so that the first samples are of different prompts.
        held_out = range(len(self.prompts), len(self.all_prompts))
        return samples(self.seed, role, generation, list(held_out) * self.images_per_prompt)


def check_same_run(journal: Journal, config: RunConfig, space: EnsembleSpace) -> None:
    """Begin the run in a new journal, or see that the journal's run is this one.

    Raises JournalError if it is another one.
    """
    if journal.config() is None:
        journal.set_config(run_record(config, space))
    elif changed := differences(journal, config, space):
        raise JournalError(
            f"The journal {journal.path} belongs to a run with other settings: "
            f"{'; '.join(changed)}. Give this run another name, or restore the settings to go on."
        )


def differences(journal: Journal, config: RunConfig, space: EnsembleSpace) -> list[str]:
    """What differs between a journal's run and this one, in words; nothing in a new journal.

    The budget may differ without being another run.
    """
    held = journal.config()
    return [] if held is None else differing_settings(held, run_record(config, space))


def differing_settings(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two run records, such as `seed (1, now 2)`; within mappings too."""
    found = []
    for name in sorted(held.keys() | wanted.keys()):
        before, now = held.get(name), wanted.get(name)
        if before == now:
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += [f"{name}.{inner}" for inner in differing_settings(before, now)]
        elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            at = next(
                i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1]
            )
            found.append(
                f"{name} (entry {at + 1} of {len(now)} was {_short(before[at])}, "
                f"now {_short(now[at])})"
            )
        else:
            found.append(f"{name} ({_short(before)}, now {_short(now)})")
    return found


def library_versions() -> dict[str, str]:
    """Versions of Python, of this pack and of the libraries that a run's numbers depend on."""
    versions = {"python": platform.python_version(), "comfyui-calibri": _own_version()}
    for library in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return versions


def _own_version() -> str:
    try:
        return metadata.version("comfyui-calibri")
    except metadata.PackageNotFoundError:  # ComfyUI loads this pack by path
        project = Path(__file__).parents[1] / "pyproject.toml"
        found = re.search(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else "unknown"


def run_record(config: RunConfig, space: EnsembleSpace) -> dict[str, Any]:
    """What tells one run from another, as JSON values: all but its budget."""
    settings = {
        name: value for name, value in asdict(config).items() if name not in _BUDGET + _ENDING
    }
    record: dict[str, Any] = json.loads(json.dumps({**settings, **space.record()}))
    return record


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
