"""A calibration of the command line: from its settings to what it leaves, without a server.

The same preparation, journal, run folders and files as the node's, so that either goes on with the
other's run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibri.settings import ModelNames, RunSettings
from . import runs
from .headless import HeadlessError, ModelFiles, Pipeline, load, reward_named

if TYPE_CHECKING:
    from ..calibri.outcome import GenerationSummary, Outcome
    from ..calibri.preset_metadata import Preset
    from ..calibri.session import Session
    from ..rewards.protocol import Reward
    from .calibration_inputs import Prepared
    from .calibration_result import RunResult

Count = Callable[[int, int], None]
Say = Callable[[str], None]
# Folders of ComfyUI's where a part's files are looked for by their names.
_TAESD = ("taesd", "taesdxl", "taesd3", "taef1", "taef2")
_FOLDERS = {
    "checkpoint": "checkpoints",
    "diffusion_model": "diffusion_models",
    "text_encoder": "text_encoders",
    "vae": "vae",
}


def model_files(names: ModelNames) -> ModelFiles:
    """The files of these paths or names. Raises HeadlessError for one that is nowhere."""
    encoders = [_file("text_encoder", name) for name in names.text_encoders]
    return ModelFiles(
        checkpoint=_file("checkpoint", names.checkpoint),
        diffusion_model=_file("diffusion_model", names.diffusion_model),
        text_encoders=tuple(file for file in encoders if file is not None),
        text_encoder_type=names.text_encoder_type or None,
        vae=_file("vae", names.vae),
        weight_dtype=names.weight_dtype or None,
    )


def prepare_settings(
    settings: RunSettings,
    rewards: Callable[[str], Reward] | None = None,
    images_at_once: int | None = None,
    start: Preset | None = None,
) -> Prepared:
    """What these settings make, its model loaded; prompts are texts, `start` is `start_preset`.

    Raises ValueError with one sentence for what is missing or does not fit together.
    """
    import torch

    from .calibration_inputs import prepare

    check_settings(settings)
    names = (settings.reward, *settings.other_rewards)
    first, *others = map(rewards or reward_named, names)
    with torch.inference_mode():
        loaded: Pipeline = load(model_files(settings.model))
        preview = settings.model.preview_vae
        prepared = prepare(
            model=loaded.model,
            clip=loaded.clip,
            vae=loaded.vae,
            prompts=settings.prompts,
            held_out=settings.held_out or None,
            reward=first,
            **{f"other_reward_{number}": other for number, other in enumerate(others, 1)},
            start_from=start,
            preview_vae=_preview_vae(preview) if preview else None,
            **settings.values,
        )
    prepared.evaluator.images_at_once = images_at_once
    return prepared


def check_settings(settings: RunSettings) -> None:
    """ValueError for what no calibration can do without, before anything is loaded."""
    if not settings.model.checkpoint and not settings.model.diffusion_model:
        raise ValueError(
            "There is no model: give --checkpoint or --diffusion-model, or name it in the settings "
            "file under [model]."
        )
    if not settings.prompts:
        raise ValueError("There are no prompts: give --prompts a .txt file, one prompt a line.")
    if not settings.reward:
        raise ValueError("There is no reward: give --reward, for example PickScore.")
    if len(settings.other_rewards) > 3:
        raise ValueError(
            f"There are {len(settings.other_rewards)} other rewards: give at most three."
        )


def start_preset(settings: RunSettings) -> Preset | None:
    """The preset that they begin at. Raises PresetError or OSError where it cannot be read."""
    from ..calibri.presets import load_preset

    return load_preset(settings.start_from) if settings.start_from else None


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end."""

    outcome: Outcome
    result: RunResult


def known_run(name: str, record: Mapping[str, Any], run_id: str | None = None) -> Path | None:
    """The folder of the run of this name and record, if there is one.

    With `run_id` that very run's: a copied or renamed folder has the record of another.
    """
    return runs.same_run(name, dict(record)) if run_id is None else runs.find_run(run_id)


def open_run(name: str, record: Mapping[str, Any], run_id: str | None = None) -> Path:
    """`known_run`, made if need be."""
    return known_run(name, record, run_id) or runs.new_run(name, dict(record))


def run(
    prepared: Prepared,
    settings: RunSettings,
    start: Preset | None,
    folder: Path,
    say: Say,
    count: Count,
) -> Ended:
    """Calibrate, or go on with, the run in `folder`, which gets its settings file.

    Raises StopRequestedError where `comfyui-calibri stop` asked for it, JournalError where another
    process works on the run, and whatever the model or the reward raises; all of it is kept.
    """
    import torch

    from ..calibri.calibration import calibrate
    from ..calibri.configuration import library_versions
    from ..calibri.course_words import generation_words
    from ..calibri.journal import Journal
    from ..calibri.likeness import MUST, differences, last_versions
    from ..calibri.stop_request import heeding
    from .album import Album, PicturedEvaluator
    from .best_so_far import BestSoFar, keep_recommended
    from .calibration_result import conclude
    from .run_settings import START, keep_settings
    from .sampling import ComfyEvaluator

    config, evaluator = prepared.config, prepared.evaluator
    kept = replace(settings, model=whole_paths(settings.model), start_from=START if start else "")
    keep = BestSoFar(folder.name, prepared)
    # What other machines draw is not seen here.
    is_seen = isinstance(evaluator, ComfyEvaluator)
    draws = PicturedEvaluator(evaluator, Album(folder, prepared)) if is_seen else evaluator

    def on_generation(summary: GenerationSummary) -> None:
        say(generation_words(config.reward, summary))

    with torch.inference_mode(), Journal.open(folder / runs.JOURNAL) as journal:
        heed = heeding(folder)

        def between(session: Session) -> None:
            keep(session)
            heed(session)

        before = last_versions(journal)

        def begun() -> None:
            # Not before: another process may be at work on it.
            keep_settings(folder, kept, start)
            now = {**library_versions(), **prepared.versions}
            if changed := differences(now, before, MUST, "so far"):
                say(f"The run goes on, but its images may differ in the last bits: {changed}.")

        if evaluator.preview is not None:
            evaluator.preview.say = say
            evaluator.preview.remember(journal)
        outcome = calibrate(
            config,
            prepared.space,
            draws,
            journal,
            on_generation,
            count,
            prepared.versions,
            between,
            begun,
        )
        result = conclude(prepared, folder.name, outcome, journal)
        keep_recommended(folder.name)
        return Ended(outcome, result)


def _file(part: str, name: str) -> Path | None:
    """A path as it is, else the file of that name in ComfyUI's folders; None for ""."""
    import folder_paths

    if not name:
        return None
    if Path(name).is_file():
        return Path(name)
    found = folder_paths.get_full_path(_FOLDERS[part], name)
    if found is None:
        raise HeadlessError(
            f"There is no {part.replace('_', ' ')} {name!r}, neither as a path nor in ComfyUI's "
            f"models/{_FOLDERS[part]}: check its name."
        )
    return Path(found)


def whole_paths(names: ModelNames) -> ModelNames:
    """The same files, by paths that hold from every folder."""

    def whole(name: str) -> str:
        return str(Path(name).absolute()) if name and Path(name).is_file() else name

    return replace(
        names,
        checkpoint=whole(names.checkpoint),
        diffusion_model=whole(names.diffusion_model),
        text_encoders=tuple(whole(name) for name in names.text_encoders),
        vae=whole(names.vae),
        preview_vae=whole(names.preview_vae),
    )


def _preview_vae(name: str) -> Any:
    from .headless import load_vae

    if name in _TAESD and not Path(name).is_file():
        # ComfyUI puts each of them together from two files of models/vae_approx.
        from nodes import VAELoader

        try:
            return VAELoader().load_vae(name)[0]
        except Exception as error:  # whatever a missing file makes it raise
            raise HeadlessError(
                f"The preview VAE {name} cannot be loaded ({error}): put its encoder and decoder "
                "into ComfyUI's models/vae_approx."
            ) from error
    path = _file("vae", name)
    assert path is not None
    return load_vae(path)
