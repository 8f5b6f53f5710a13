"""`calibrate` and `resume`: a calibration on a ComfyUI model without its server."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..calibri.settings import ModelNames, RunSettings
from .engine_options import engine_of, with_engine_options
from .engines import Engine
from .exit_codes import BAD_INPUT, FAILED, sentences, terminable
from .run_options import Base, ComfyUI, Json, Output, User, merged, with_setting_options

if TYPE_CHECKING:
    from ..nodes.headless_run import Ended

Text = Optional[str]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
File = Optional[Path]  # noqa: UP045
_MODEL, _PLAN = "Model", "Plan"
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Say what it will cost, and do nothing.", rich_help_panel=_PLAN),
]
Seconds = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0.0, help="For --plan (default: measured).", rich_help_panel=_PLAN),
]
Price = Annotated[
    float, typer.Option(min=0.0, help="For --plan: of a worker's hour.", rich_help_panel=_PLAN)
]


@with_setting_options
@with_engine_options
def calibrate(
    config: Annotated[
        File, typer.Option("--config", help="A settings file (TOML); options go before it.")
    ] = None,
    run_name: Annotated[Text, typer.Option(help="Names the run's folders. [default: run]")] = None,
    checkpoint: Annotated[
        Text, typer.Option(help="A model in one file.", rich_help_panel=_MODEL)
    ] = None,
    diffusion_model: Annotated[
        Text,
        typer.Option(help="A model without text encoder and VAE.", rich_help_panel=_MODEL),
    ] = None,
    weight_dtype: Annotated[
        Text, typer.Option(help="As in Load Diffusion Model.", rich_help_panel=_MODEL)
    ] = None,
    text_encoder: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Its text encoder; again for a second or third.", rich_help_panel=_MODEL),
    ] = None,
    text_encoder_type: Annotated[
        Text,
        typer.Option(
            help="As in ComfyUI's Load CLIP (default: the model's family).", rich_help_panel=_MODEL
        ),
    ] = None,
    vae: Annotated[Text, typer.Option(help="Its VAE.", rich_help_panel=_MODEL)] = None,
    preview_vae: Annotated[
        Text,
        typer.Option(
            help="A small VAE that decodes the search's images, as taef1.", rich_help_panel=_MODEL
        ),
    ] = None,
    prompts: Annotated[File, typer.Option(help="To search on: .txt, .csv or .json.")] = None,
    held_out: Annotated[
        File, typer.Option(help="To measure on (default: a quarter of the prompts).")
    ] = None,
    reward: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="What is searched: demo, ImageReward, PickScore … or a name of rewards.yaml. "
            "Again, up to three times, for rewards that judge."
        ),
    ] = None,
    start_from: Annotated[File, typer.Option(help="A preset to begin at.")] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    plan: Plan = False,
    seconds_per_image: Seconds = None,
    price: Price = 0.0,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Search a model's coefficients that raise a reward, as the node Calibrate does.

    The run's journal is in user/calibri/runs, its results in output/calibri, where the node's are:
    either goes on with the other's run. Stopped with Ctrl-C, SIGTERM or `stop`, it goes on when it
    is called again. Exits with 0 at its end, 1 where something failed, 2 for bad input, 3 where
    another process works on the run, 130 when stopped and 143 when terminated.
    """
    from ..nodes.headless import find_comfyui, open_folders

    with sentences(BAD_INPUT):
        settings = RunSettings() if config is None else _read(config)
        model = ModelNames(
            checkpoint=checkpoint or "",
            diffusion_model=diffusion_model or "",
            weight_dtype=weight_dtype or "",
            text_encoders=tuple(text_encoder or ()),
            text_encoder_type=text_encoder_type or "",
            vae=vae or "",
            preview_vae=preview_vae or "",
        )
        engine = engine_of(given)
        settings = merged(settings, run_name, model, prompts, held_out, reward, start_from, given)
        folder = find_comfyui(comfyui)
        open_folders(folder, base_directory, user_directory, output_directory)
    _work(settings, engine, folder, as_json, Planned(seconds_per_image, price) if plan else None)


@with_engine_options
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As `status` lists them.")],
    generations: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="A larger budget; it goes on after its end too."),
    ] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    plan: Plan = False,
    seconds_per_image: Seconds = None,
    price: Price = 0.0,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Go on with a run that the command line or a node of the page began.

    Its settings.toml says what it is made of; where a workflow's model came through nodes that no
    option stands for, `calibrate --config` takes that file and what is missing. Exits as
    `calibrate`.
    """
    from ..nodes.headless import find_comfyui, open_folders

    with sentences(BAD_INPUT):
        engine = engine_of(given)
        folder = find_comfyui(comfyui)
        open_folders(folder, base_directory, user_directory, output_directory)
        from ..calibri.journal_file import is_locked, lock_for_writing
        from ..nodes import runs
        from ..nodes.run_settings import settings_of_run

        journal = runs.find_run(run) / runs.JOURNAL
        if not plan and is_locked(journal):
            lock_for_writing(journal).close()  # says so before a model is loaded
        settings = settings_of_run(run)
        if generations is not None:
            settings = replace(settings, values={**settings.values, "generations": generations})
    wanted = Planned(seconds_per_image, price) if plan else None
    _work(settings, engine, folder, as_json, wanted, run)


@dataclass(frozen=True)
class Planned:
    """What --plan is told."""

    seconds_per_image: float | None
    price: float


def _work(
    settings: RunSettings,
    engine: Engine,
    comfyui: Path,
    as_json: bool,
    plan: Planned | None = None,
    run_id: str | None = None,
) -> None:
    """Load, then plan or calibrate; with `run_id` only that very run."""
    from .plan import show_plan
    from .progress import bar

    with terminable():
        try:
            with sentences(BAD_INPUT), bar() as shown:
                prepared, start = engine.prepare(settings, comfyui, shown.say, run_id)
            from ..nodes import headless_run, runs

            record = prepared.settings
            with sentences(BAD_INPUT):
                if run_id is not None:
                    runs.check_settings_of(run_id, record)
                if plan is not None:
                    known = headless_run.known_run(settings.name, record, run_id)
                    found = engine.forecast(prepared, known, plan.seconds_per_image, plan.price)
                    show_plan(found, as_json)
                    return
                folder = headless_run.open_run(settings.name, record, run_id)
            with sentences(FAILED), bar() as shown:
                shown.say(f"The run {folder.name} in {folder}")
                ended = headless_run.run(prepared, settings, start, folder, shown.say, shown.count)
        finally:
            engine.close()
    _tell(ended, folder, as_json)


def _tell(ended: Ended, folder: Path, as_json: bool) -> None:
    if not as_json:
        typer.echo(ended.result.text)
        return
    from ..nodes import runs
    from .run_report import finished_report

    output = runs.output_folder(folder.name)
    typer.echo(json.dumps(finished_report(folder, output), ensure_ascii=False))


def _read(config: Path) -> RunSettings:
    """A settings file; the files that it names are beside it."""
    from ..calibri.settings_file import read_settings

    settings = read_settings(config)

    def beside(name: str) -> str:
        there = config.parent / name
        return str(there) if name and there.is_file() else name

    changed: dict[str, Any] = {"start_from": beside(settings.start_from)}
    for name in ("prompts", "held_out"):
        value = getattr(settings, name)
        if isinstance(value, str) and value:
            changed[name] = beside(value)
    return replace(settings, **changed)
