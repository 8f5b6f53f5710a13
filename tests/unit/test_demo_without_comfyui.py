"""scripts/demo where there is no ComfyUI: what it says, and what it runs in its place."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

import python_environment
from comfyui_location import NotInstalledError
from setup_error import SetupError


@pytest.fixture
def script(root: Path) -> ModuleType:
    """scripts/demo, which has no suffix, as a module."""
    loader = SourceFileLoader("scripts_demo", str(root / "scripts" / "demo"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_a_comfyui_that_cannot_be_had_is_said_with_what_is_used_instead(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> Path:
        raise NotInstalledError("comfy-cli could not install ComfyUI.")

    monkeypatch.setattr(script, "find_or_install_comfyui", nowhere)
    assert script.find_comfyui_or_say_so() is None
    said = capsys.readouterr().out
    assert "comfy-cli could not install ComfyUI." in said
    assert "neither found nor could it be installed: the command line's own sampler" in said


def test_its_own_command_finds_the_package_wherever_the_clone_is(script: ModuleType) -> None:
    command, variables = script.own_command(Path(sys.executable), 7)
    assert command[1:4] == ["-m", "comfyui_calibri", "demo"]
    assert command[-2:] == ["--generations", "7"]
    done = subprocess.run(
        [sys.executable, "-c", "import comfyui_calibri; print(comfyui_calibri.__file__)"],
        env=variables,
        cwd=Path(sys.executable).anchor,
        capture_output=True,
        text=True,
    )
    assert ".run" in done.stdout


def test_a_port_means_nothing_without_comfyui(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, root / "scripts" / "demo", "--without-comfyui", "--keep-server"],
        env={**os.environ, "COMFYUI_PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "leave out --without-comfyui" in done.stderr


def test_the_python_that_runs_will_do_where_nothing_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> Path:
        raise SetupError("The packages could not be installed.")

    monkeypatch.setattr(python_environment, "project_environment", unreachable)
    assert python_environment.demo_python(tmp_path / "venv") == Path(sys.executable)
    monkeypatch.setattr(python_environment, "DEMO_MODULES", ("torch", "no_such_module"))
    with pytest.raises(SetupError, match="could not be installed"):
        python_environment.demo_python(tmp_path / "venv")


def test_an_environment_that_has_everything_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object) -> Path:
        raise AssertionError("installed something")

    monkeypatch.setattr(python_environment, "project_environment", must_not)
    monkeypatch.setattr(python_environment, "_python_of", lambda _: Path(sys.executable))
    assert python_environment.demo_python(tmp_path / "venv") == Path(sys.executable)
