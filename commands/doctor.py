"""`doctor`: what is installed, found and missing, before a night is lost on it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from .run_options import Base, ComfyUI, Json, Output, User

OK, NOTE, MISSING = "ok", "note", "missing"
"""As it should be; not there, and needed for some things only; needed."""
UNHEALTHY = 1
# What each is needed for.
_NEEDED = ("torch", "numpy", "safetensors", "Pillow", "cma", "matplotlib", "typer")
_OPTIONAL = {
    "tomlkit": "settings files: pip install -r requirements.txt in the pack's folder",
    "ray": "--engine ray: pip install 'comfyui-calibri[ray]'",
    "diffusers": "verify and train: pip install 'comfyui-calibri[diffusers]'",
    "accelerate": "train on several GPUs: pip install 'comfyui-calibri[train]'",
}
_OLDEST = (0, 3, 64)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do where it is not as it should be."""

    about: str
    state: str
    text: str


def doctor(
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, found and missing: ComfyUI, packages, folders, presets, rewards,
    workers' environments, the device, Ray.

    Nothing is loaded but PyTorch, and nothing is downloaded. Exits with 0 where nothing that is
    needed is missing, else with 1.
    """
    found = list(_examine(comfyui, base_directory, user_directory, output_directory))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    else:
        width = max(len(finding.about) for finding in found)
        for finding in found:
            typer.echo(f"{finding.state:7}  {finding.about:{width}}  {finding.text}")
    if any(finding.state == MISSING for finding in found):
        raise typer.Exit(UNHEALTHY)


def _examine(
    comfyui: Path | None, base: Path | None, user: Path | None, output: Path | None
) -> Iterator[Finding]:
    from ..nodes.headless import HeadlessError, find_comfyui, open_folders

    yield Finding("Python", OK, platform.python_version())
    yield from _packages()
    yield _safely("device", _device)
    try:
        place = find_comfyui(comfyui)
        open_folders(place, base, user, output)
    except HeadlessError as error:
        yield Finding("ComfyUI", MISSING, str(error))
        return
    yield _safely("ComfyUI", lambda: _comfyui(place))
    for about, look in _LOOKS.items():
        yield _safely(about, look)
    yield from _rewards()


def _packages() -> Iterator[Finding]:
    for name in _NEEDED:
        version = _version(name)
        how = "pip install -e . in the pack's folder, into ComfyUI's Python"
        yield Finding(name, MISSING if version is None else OK, version or f"not there: {how}")
    for name, use in _OPTIONAL.items():
        version = _version(name)
        yield Finding(name, NOTE if version is None else OK, version or f"not there, for {use}")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("device", OK, ", ".join(names))
    if torch.backends.mps.is_available():
        return Finding("device", OK, "Apple's GPU")
    return Finding("device", NOTE, "no accelerator that PyTorch knows: it computes on the CPU")


def _comfyui(place: Path) -> Finding:
    from ..nodes.runs import host_versions

    version = host_versions()["comfyui"]
    if tuple(int(part) for part in version.split(".")[:3]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return Finding("ComfyUI", MISSING, f"{version} in {place}: update it to {oldest}")
    return Finding("ComfyUI", OK, f"{version} in {place}")


def _folders() -> Finding:
    folder_paths = _folder_paths()
    names = ("checkpoints", "diffusion_models", "text_encoders", "vae")
    counts = {name: len(folder_paths.get_filename_list(name)) for name in names}
    state = OK if counts["checkpoints"] or counts["diffusion_models"] else NOTE
    told = ", ".join(f"{count} in {name}" for name, count in counts.items())
    return Finding("models", state, f"{told}, below {folder_paths.models_dir}")


def _presets() -> Finding:
    from ..calibri.presets import PresetError, load_preset
    from ..nodes import folders

    names, broken = folders.preset_files(), []
    for name in names:
        try:
            load_preset(folders.preset_path(name))
        except (PresetError, OSError):
            broken.append(name)
    told = f"{len(names)} in models/calibri"
    if broken:
        return Finding("presets", NOTE, f"{told}; these cannot be read: {', '.join(broken)}")
    return Finding("presets", OK, told)


def _runs() -> Finding:
    from ..calibri.run_state import BROKEN, RUNNING, read_state
    from ..nodes import runs

    states = [read_state(runs.runs_folder() / name / runs.JOURNAL) for name in runs.all_runs()]
    broken = [state.id for state in states if state.state == BROKEN]
    going = sum(state.state == RUNNING for state in states)
    told = f"{len(states)} in {runs.runs_folder()}, {going} running"
    if broken:
        return Finding("runs", NOTE, f"{told}; unreadable: {', '.join(broken)}")
    return Finding("runs", OK, told)


def _writable() -> Finding:
    folder_paths = _folder_paths()
    places = (folder_paths.get_user_directory(), folder_paths.get_output_directory())
    for place in map(Path, places):
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if not os.access(there, os.W_OK):
            return Finding("folders", MISSING, f"{place} cannot be written: change its rights")
    return Finding("folders", OK, f"runs in {places[0]}, results in {places[1]}")


_LOOKS: dict[str, Callable[[], Finding]] = {
    "folders": _writable,
    "models": _folders,
    "presets": _presets,
    "runs": _runs,
}


def _rewards() -> Iterator[Finding]:
    """Published rewards by their files, and those that rewards.yaml declares."""
    from ..nodes.folders import REWARDS
    from ..rewards.catalogue import KINDS

    folder_paths = _folder_paths()
    names = folder_paths.get_filename_list(REWARDS)
    for kind, entry in KINDS.items():
        file = entry.find(names)
        words = file or entry.missing(folder_paths.get_folder_paths(REWARDS)[0])
        yield Finding(kind, NOTE if file is None else OK, words.removesuffix(" and press R."))
    yield from _declared()


def _declared() -> Iterator[Finding]:
    from ..rewards.declarations import WorkerDeclaration, parse
    from ..rewards.declared_file import DeclarationError, read_declared
    from ..rewards.environment import CURRENT, is_whole
    from ..rewards.external_reward import ENVIRONMENTS

    file = Path(_folder_paths().get_user_directory()) / "calibri" / "rewards.yaml"
    try:
        declared = {name: parse(one) for name, one in read_declared(file).items()}
    except (DeclarationError, ImportError) as error:
        yield Finding("rewards.yaml", NOTE, str(error))
        return
    for name, one in declared.items():
        about = f"reward {name}"
        if not isinstance(one, WorkerDeclaration):
            yield Finding(about, OK, "on another machine; not asked now")
        elif one.script is not None and not (file.parent / one.script).is_file():
            yield Finding(about, NOTE, f"its script {file.parent / one.script} is not there")
        elif one.python == CURRENT or is_whole(
            one.made_of.folder(name, file.parent / ENVIRONMENTS)
        ):
            yield Finding(about, OK, "its environment is ready")
        else:
            yield Finding(about, NOTE, "its environment is made when it is first used")


def _folder_paths() -> Any:
    """ComfyUI's module, once its folders are open."""
    return importlib.import_module("folder_paths")


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    module = {"Pillow": "PIL"}.get(name, name)
    return "there" if importlib.util.find_spec(module) else None


def _safely(about: str, look: Callable[[], Finding]) -> Finding:
    """What a look finds; a problem of its own is a finding too."""
    try:
        return look()
    except Exception as error:
        text: Any = str(error) or type(error).__name__
        return Finding(about, MISSING, f"cannot be examined: {text}")
