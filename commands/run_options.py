"""The options of commands that make or find a run. A setting's option is made of its declaration
(`calibri/settings.py`), so that the node, the settings file and the command line have the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..calibri.settings import SETTINGS, ModelNames, RunSettings, check_values

ComfyUI = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
    typer.Option(
        "--comfyui",
        help="ComfyUI's folder (default: COMFYUI_PATH, or where it is found).",
        rich_help_panel="ComfyUI",
    ),
]
Base = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--base-directory", help="As ComfyUI's.", rich_help_panel="ComfyUI"),
]
User = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--user-directory", help="As ComfyUI's.", rich_help_panel="ComfyUI"),
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output-directory", help="As ComfyUI's.", rich_help_panel="ComfyUI"),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def with_setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each setting, None where it is not given; it takes them as
    keywords."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [_option(name) for name in SETTINGS]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def merged(
    settings: RunSettings,
    name: str | None,
    model: ModelNames,
    prompts: Path | None,
    held_out: Path | None,
    reward: list[str] | None,
    start_from: Path | None,
    given: Mapping[str, Any],
) -> RunSettings:
    """A file's settings with what the command line says in their place.

    Raises SettingsError for a value that does not fit, PromptListError for prompts.
    """
    from ..calibri.settings_file import with_prompts

    values = check_values({key: value for key, value in given.items() if value is not None})
    chosen: dict[str, Any] = {"values": {**settings.values, **values}}
    if name is not None:
        chosen["name"] = name
    if model != ModelNames():
        chosen["model"] = _merged_model(settings.model, model)
    if reward:
        chosen |= {"reward": reward[0], "other_rewards": tuple(reward[1:])}
    if start_from is not None:
        chosen["start_from"] = str(start_from)
    if prompts is not None:
        chosen |= {"prompts": str(prompts), "held_out": ()}
    if held_out is not None:
        chosen["held_out"] = str(held_out)
    return with_prompts(replace(settings, **chosen), Path)


def _merged_model(known: ModelNames, given: ModelNames) -> ModelNames:
    """Another model altogether where one is named; else files beside the known one."""
    if given.checkpoint or given.diffusion_model:
        return given
    parts = ("weight_dtype", "text_encoders", "text_encoder_type", "vae", "preview_vae")
    return replace(known, **{p: getattr(given, p) for p in parts if getattr(given, p)})


def _option(name: str) -> inspect.Parameter:
    setting = SETTINGS[name]
    kind = type(setting.default)
    shown = "''" if setting.default == "" else setting.default
    bounds: dict[str, Any] = {}
    if setting.least is not None:
        bounds = {"min": setting.least, "max": setting.most}
    words = f"{setting.help} [default: {shown}]"
    option = typer.Option(help=words, rich_help_panel=setting.section.capitalize(), **bounds)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Optional[kind], option],  # noqa: UP045
    )
