"""Find the ComfyUI to run, or install one with comfy-cli where there is none.

Asked in turn: COMFYUI_PATH, the ComfyUI whose custom_nodes/ holds this clone, comfy-cli's default
folder.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from progress import say, step
from project_folders import LOGS, RUN
from python_environment import make_environment
from setup_error import SetupError

DEFAULT = Path.home() / "comfy" / "ComfyUI"
OLDEST_SUPPORTED = "0.3.64"  # as in pyproject.toml, [tool.comfy]


class NotInstalledError(SetupError):
    """There is no ComfyUI and none could be installed."""


def find_or_install_comfyui() -> Path:
    """The root folder of the ComfyUI to use, telling the terminal where it is.

    SetupError if COMFYUI_PATH names something else, NotInstalledError if there is none to be had.
    """
    with step("ComfyUI: looking for it"):
        found = find_comfyui()
        say(f"    {found or 'none on this machine'}")
    if found is not None:
        return found
    with step(f"ComfyUI: installing it into {DEFAULT} (minutes)"):
        return install_comfyui()


def holds_comfyui(folder: Path) -> bool:
    """Whether `folder` is the root of a ComfyUI checkout."""
    return (folder / "main.py").is_file() and (folder / "comfy" / "sd.py").is_file()


def find_comfyui() -> Path | None:
    """The root folder of the ComfyUI to use, None where there is none yet.

    SetupError if COMFYUI_PATH names something else.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        return _named_comfyui("COMFYUI_PATH", named)
    # Not resolved: a link to this clone inside custom_nodes/ counts as well.
    clone = Path(__file__).absolute().parents[1]
    if clone.parent.name == "custom_nodes" and holds_comfyui(clone.parents[1]):
        return clone.parents[1]
    return DEFAULT if holds_comfyui(DEFAULT) else None


def find_oldest_comfyui() -> Path | None:
    """A checkout of the oldest supported version, for its smoke test: COMFYUI_OLDEST_PATH or beside
    the default one. SetupError if the variable names something else."""
    named = os.environ.get("COMFYUI_OLDEST_PATH")
    if named:
        return _named_comfyui("COMFYUI_OLDEST_PATH", named)
    beside = oldest_default()
    return beside if holds_comfyui(beside) else None


def oldest_default() -> Path:
    """Where the oldest supported version is looked for."""
    return DEFAULT.with_name(f"ComfyUI-{OLDEST_SUPPORTED}")


def install_comfyui() -> Path:
    """Install ComfyUI's latest release into comfy-cli's default folder and return that folder.

    comfy-cli makes a complete ComfyUI with an environment of its own, ready for `comfy launch`.
    NotInstalledError if it cannot, most often because GitHub cannot be reached.
    """
    try:
        python = make_environment(RUN / "comfy-cli", ["comfy-cli"], "comfy-cli")
    except SetupError as error:
        raise NotInstalledError(f"{error} Or set COMFYUI_PATH to a ComfyUI folder.") from error
    command = [str(python), "-m", "comfy_cli", "--skip-prompt", f"--workspace={DEFAULT}", "install"]
    # Inside an activated environment comfy-cli would install into that one.
    outside = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    log = LOGS / "install-comfyui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            [*command, _flavour(), "--version", "latest"],
            env=outside,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0 or not holds_comfyui(DEFAULT):
        raise NotInstalledError(
            f"comfy-cli could not install ComfyUI into {DEFAULT} (its words are in {log}): "
            "connect to the internet and run this again, or set COMFYUI_PATH to a ComfyUI folder."
        )
    return DEFAULT


def _named_comfyui(variable: str, value: str) -> Path:
    folder = Path(value).expanduser().absolute()
    if not holds_comfyui(folder):
        raise SetupError(
            f"{variable} is {value!r}, where there is no ComfyUI: "
            "set it to the folder that holds ComfyUI's main.py, or unset it."
        )
    return folder


def _flavour() -> str:
    """comfy-cli's option for this machine's accelerator."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "--m-series"
    if shutil.which("nvidia-smi"):
        return "--nvidia"
    if shutil.which("rocm-smi") or shutil.which("amd-smi"):
        return "--amd"
    return "--cpu"
