"""The settings file that a run leaves in its folder, so that the command line can go on with it and
other runs can begin from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibri.atomic_file import write_atomically
from ..calibri.presets import Preset, save_preset
from ..calibri.settings import SETTINGS, RunSettings
from . import runs
from .model_origin import Graph, model_names, reward_names

if TYPE_CHECKING:
    from .calibration_inputs import Prepared

FILE = "settings.toml"
START = "started_from.safetensors"  # beside it: the preset that the search began at
BACKGROUND_START = "start.safetensors"  # attach.py
REWARDS = ("reward", "other_reward_1", "other_reward_2", "other_reward_3")
_NOTE = """What made this run, for `comfyui-calibri resume` and Load Calibration Settings.
Change a copy of it: with other values it is another run."""
_UNKNOWN = """
The workflow's model, text encoder, VAE or rewards came through nodes that no option stands for:
name them on the command line."""


def settings_of(
    run_name: str, inputs: Mapping[str, Any], prepared: Prepared, graph: Graph, node: str
) -> RunSettings:
    """A node's inputs as settings; `graph` is the prompt that it is node `node` of."""
    rewards = reward_names(graph, node, REWARDS)
    config = prepared.config
    return RunSettings(
        name=run_name,
        model=model_names(graph, node),
        # Split as this run has split them.
        prompts=config.prompts,
        held_out=config.validation_prompts,
        reward=rewards.pop("reward", ""),
        other_rewards=tuple(rewards.values()),
        start_from=START if inputs.get("start_from") is not None else "",
        values={name: inputs.get(name, setting.default) for name, setting in SETTINGS.items()},
    )


def keep_settings(folder: Path, settings: RunSettings, start: Preset | None) -> None:
    """Leave a settings file, and the preset it names, in a run's folder.

    The run goes on without where that fails: nothing of it depends on the file.
    """
    from ..calibri.settings_file import write_settings

    known = settings.reward and (settings.model.checkpoint or settings.model.diffusion_model)
    try:
        if start is not None:
            save_preset(folder / START, start, overwrite=True)
        write_settings(folder / FILE, settings, _NOTE if known else _NOTE + _UNKNOWN)
    except (OSError, ImportError) as error:
        logging.warning("Calibri: the settings of the run are not kept in %s: %s", folder, error)


def copy_settings(run_id: str, folder: Path) -> None:
    """Put a run's settings file into `folder` too, where people look for them."""
    kept = runs.runs_folder() / run_id / FILE
    if kept.is_file():
        write_atomically(folder / FILE, kept.read_bytes())


def settings_of_run(run_id: str) -> RunSettings:
    """What a run was begun with. Raises ValueError where that is not known."""
    from ..calibri.settings_file import read_settings

    folder = runs.find_run(run_id)
    if not (folder / FILE).is_file():
        raise ValueError(
            f"The run {run_id!r} has no {FILE}, since an earlier version began it: give "
            "`calibrate` what it was made of."
        )
    settings = read_settings(folder / FILE)
    # A preset of a run before it, which a background run began at.
    starts = [folder / name for name in (settings.start_from, BACKGROUND_START) if name]
    start = next((str(path) for path in starts if path.is_file()), "")
    # The folder's name may have a number that the run's has not.
    return replace(settings, start_from=start)


def with_settings(inputs: dict[str, Any]) -> dict[str, Any]:
    """A node's inputs, with those of a linked settings file in the place of its widgets."""
    settings: RunSettings | None = inputs.pop("settings", None)
    if settings is None:
        return inputs
    return {**inputs, **settings.values, "run_name": settings.name}
