"""Python environments for the two commands: made once, and again when what they hold has changed.

The environment of a ComfyUI that is found stays as it is: everything is installed into .venv here.
uv is used where it can be had (on PATH, or from PyPI into the new environment), pip elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from progress import say
from project_folders import LOGS, ROOT
from setup_error import SetupError

# ComfyUI leaves PyTorch's version open, and the newest three do not fit together: torchaudio stops
# at 2.11 and refuses a torch built for another CUDA, torchvision needs the torch it was built for.
PYTORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
STAMP = "calibri-setup.json"
# What the demo without ComfyUI imports.
DEMO_MODULES = (
    "cma",
    "matplotlib",
    "numpy",
    "PIL",
    "psutil",
    "safetensors",
    "scipy",
    "torch",
    "typer",
)


def project_environment(
    folder: Path, comfyui: Path | None, extras: Sequence[str], also: Sequence[str] = ()
) -> Path:
    """The Python of the environment `folder` with this pack (editable, with `extras`) and what
    `comfyui` requires; without a ComfyUI, with what the pack itself uses of it. Nothing is done
    where it is ready.

    SetupError if the packages cannot be installed.
    """
    requirements = [*(PYTORCH if comfyui else PYTORCH[:1]), *also]
    watched = [ROOT / "pyproject.toml", ROOT / "requirements.txt"]
    watched.append(ROOT / "commands" / "requirements.txt")
    if comfyui is None:
        extras = [*extras, "standalone"]
    else:
        requirements += ["-r", str(comfyui / "requirements.txt")]
        watched.append(comfyui / "requirements.txt")
    content = hashlib.sha256(repr(requirements).encode())
    for file in watched:
        content.update(file.read_bytes())
    ready = _read_stamp(folder)
    if ready["content"] == content.hexdigest():
        if set(extras) <= set(ready["extras"]) and _runs(_python_of(folder)):
            return _python_of(folder)
        extras = sorted({*extras, *ready["extras"]})
    editable = ["-e", f"{ROOT}[{','.join(extras)}]"]
    python = make_environment(folder, [*requirements, *editable], folder.name.lstrip("."))
    stamp = {"content": content.hexdigest(), "extras": list(extras)}
    (folder / STAMP).write_text(json.dumps(stamp))
    return python


def demo_python(folder: Path) -> Path:
    """A Python for the demo without ComfyUI: the environment `folder`, or where nothing can be
    installed the Python that runs this, if it happens to have all that it takes.

    SetupError if neither will do.
    """
    # One that was made for a ComfyUI has more, and stays as it is.
    if _has_demo_modules(_python_of(folder)):
        return _python_of(folder)
    try:
        return project_environment(folder, None, [])
    except SetupError as error:
        if not _has_demo_modules(Path(sys.executable)):
            raise
        say(f"    {error}\n    {sys.executable} has what the demo takes and is used instead.")
        return Path(sys.executable)


def make_environment(folder: Path, requirements: Sequence[str], log_name: str) -> Path:
    """Install `requirements` (arguments of `pip install`) into the environment `folder`, which is
    made if it is missing or broken; returns its Python. What the installer prints is kept in
    .run/logs."""
    python = _python_of(folder)
    uv = _uv_on_path()
    if not _runs(python):
        shutil.rmtree(folder, ignore_errors=True)
        _create(folder, uv)
    (folder / STAMP).unlink(missing_ok=True)
    log = LOGS / f"{log_name}.log"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    if uv is None and _install([*pip, "uv"], log):
        uv = [str(python), "-m", "uv"]
    installer = pip if uv is None else [*uv, "pip", "install", "--python", str(python)]
    if not _install([*installer, *requirements], log):
        raise SetupError(
            f"The packages could not be installed into {folder} (see above): "
            "see that PyPI can be reached and that the disk has 8 GB free, then run this again."
        )
    return python


def _create(folder: Path, uv: list[str] | None) -> None:
    make = [*uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    made = subprocess.run([*make, str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        raise SetupError(
            f"{made.stdout}{made.stderr}\n{sys.executable} could not make the environment "
            f"{folder}: install Python's venv module (Debian: apt install python3-venv) or uv, "
            "then run this again."
        )


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _runs(python: Path) -> bool:
    """Whether the environment's Python starts; it does not after the system's Python was
    replaced."""
    return python.exists() and subprocess.run([str(python), "-c", ""]).returncode == 0


def _has_demo_modules(python: Path) -> bool:
    look = (
        "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    )
    command = [str(python), "-c", look, *DEMO_MODULES]
    return python.exists() and subprocess.run(command, capture_output=True).returncode == 0


def _uv_on_path() -> list[str] | None:
    found = shutil.which("uv")
    # A pyenv shim stands on PATH even where no uv is behind it.
    if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
        return [found]
    return None


def _install(command: list[str], log: Path) -> bool:
    """Run an installer: with its progress bars in a terminal, else into `log`, shown if it
    fails."""
    if sys.stdout.isatty():
        return subprocess.run(command).returncode == 0
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        say("\n".join(log.read_text(errors="replace").splitlines()[-20:]))
    return done.returncode == 0


def _read_stamp(folder: Path) -> dict:
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {"content": None, "extras": []}
