"""A calibration's settings as a TOML file, which the command line and the nodes read and write.

    name = "night"
    prompts = ["a red circle", "a blue star"]   # or "prompts.txt"
    reward = "PickScore"

    [model]
    diffusion_model = "flux1-dev.safetensors"

    [sampling]
    steps = 15

    [search]
    generations = 60

What is left out has its default (`settings.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .atomic_file import write_atomically
from .settings import (
    SAMPLING,
    SEARCH,
    SETTINGS,
    ModelNames,
    RunSettings,
    SettingsError,
    check_values,
    unknown,
)

SUFFIX = ".toml"
LARGEST = 64 * 2**20  # bytes; a stranger's file is not to fill the memory
_MODEL = "model"
_TEXTS = ("name", "reward", "start_from")
_LISTS = ("prompts", "held_out", "other_rewards")
_MAY_BE_FILES = ("prompts", "held_out")


def read_settings(path: Path) -> RunSettings:
    """The settings of a file. Raises SettingsError, which names the file and what is wrong."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        if path.stat().st_size > LARGEST:
            raise SettingsError(
                f"The settings {path} are larger than {LARGEST} bytes: shorten them."
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"The settings {path} are not UTF-8 text: save them so.") from error
    except OSError as error:
        raise SettingsError(
            f"The settings {path} cannot be read ({error.strerror}): check their name and folder."
        ) from error
    try:
        return parse_settings(tomlkit.parse(text).unwrap())
    except (SettingsError, TOMLKitError) as error:
        raise SettingsError(f"The settings {path} cannot be used: {error}") from error


def parse_settings(given: Mapping[str, Any]) -> RunSettings:
    """Settings from a file's tables. Raises SettingsError for what is unknown or does not fit."""
    known = [*_TEXTS, *_LISTS, _MODEL, SAMPLING, SEARCH]
    for name in given:
        if name not in known:
            raise SettingsError(unknown("setting", name, known))
    tables = {name: _table(name, given.get(name, {})) for name in (_MODEL, SAMPLING, SEARCH)}
    values = {name: setting.default for name, setting in SETTINGS.items()}
    for section in (SAMPLING, SEARCH):
        values |= check_values(tables[section], section)
    found: dict[str, Any] = {name: _text(name, given[name]) for name in _TEXTS if name in given}
    for name in _LISTS:
        if name in given:
            is_file = name in _MAY_BE_FILES and isinstance(given[name], str)
            found[name] = given[name] if is_file else _texts(name, given[name])
    return RunSettings(**found, model=_model(tables[_MODEL]), values=values)


def with_prompts(settings: RunSettings, find: Callable[[str], Path]) -> RunSettings:
    """Settings whose prompts are texts: those of the files that they name, which `find` finds.

    Raises PromptListError, and whatever `find` raises.
    """
    from .prompt_sets import read_prompt_set

    def read(prompts: tuple[str, ...] | str) -> tuple[str, ...]:
        if isinstance(prompts, tuple):
            return prompts
        return tuple(prompt.text for prompt in read_prompt_set(find(prompts)))

    return dataclasses.replace(
        settings, prompts=read(settings.prompts), held_out=read(settings.held_out)
    )


def write_settings(path: Path, settings: RunSettings, note: str = "") -> None:
    """Write a settings file, whole or not at all; `note` is a comment at its top.

    Raises OSError where that fails.
    """
    write_atomically(path, settings_text(settings, note).encode())


def settings_text(settings: RunSettings, note: str = "") -> str:
    """A settings file's text, which `read_settings` reads again as it was."""
    import tomlkit

    document = tomlkit.document()
    for line in note.splitlines():
        document.add(tomlkit.comment(line))
    for name in (*_TEXTS, *_LISTS):
        value = getattr(settings, name)
        if value:
            document.add(name, _listed(value) if isinstance(value, tuple) else value)
    model = tomlkit.table()
    for name, value in dataclasses.asdict(settings.model).items():
        if value:
            model.add(name, list(value) if isinstance(value, tuple) else value)
    if model:
        document.add(_MODEL, model)
    for section in (SAMPLING, SEARCH):
        table = tomlkit.table()
        for name, setting in SETTINGS.items():
            if setting.section == section:
                table.add(name, settings.values[name])
        document.add(section, table)
    return tomlkit.dumps(document)


def _listed(texts: tuple[str, ...]) -> Any:
    import tomlkit

    listed = tomlkit.array().multiline(len(texts) > 1)
    listed.extend(texts)
    return listed


def _model(given: Mapping[str, Any]) -> ModelNames:
    fields = {one.name: one for one in dataclasses.fields(ModelNames)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise SettingsError(unknown("setting", f"model.{name}", [f"model.{f}" for f in fields]))
        is_list = name == "text_encoders"
        found[name] = _texts(name, value) if is_list else _text(name, value)
    return ModelNames(**found)


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name} is {value!r}: write a table, [{name}].")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r}: give a text.")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{name} is {value!r}: give a list of texts.")
    return tuple(value)
