"""What scripts/demo and scripts/test do before anything runs, and what they say when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import comfyui_location
from comfyui_location import NotInstalledError, find_comfyui, install_comfyui
from project_folders import BYTECODE, environment_variables, link_folder
from setup_error import SetupError


@pytest.fixture
def comfyui_folder(tmp_path: Path) -> Path:
    """What is recognised as a ComfyUI."""
    (tmp_path / "ComfyUI" / "comfy").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "main.py").touch()
    (tmp_path / "ComfyUI" / "comfy" / "sd.py").touch()
    return tmp_path / "ComfyUI"


def test_comfyui_path_comes_first(comfyui_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui_folder))
    assert find_comfyui() == comfyui_folder


def test_a_clone_in_custom_nodes_uses_the_comfyui_around_it(
    comfyui_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    inside = comfyui_folder / "custom_nodes" / "calibri" / "scripts" / "comfyui_location.py"
    monkeypatch.setattr(comfyui_location, "__file__", str(inside))
    assert find_comfyui() == comfyui_folder


def test_comfy_clis_folder_comes_last(
    comfyui_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(comfyui_location, "__file__", str(tmp_path / "a" / "scripts" / "b.py"))
    monkeypatch.setattr(comfyui_location, "DEFAULT", tmp_path / "nothing")
    assert find_comfyui() is None
    monkeypatch.setattr(comfyui_location, "DEFAULT", comfyui_folder)
    assert find_comfyui() == comfyui_folder


@pytest.mark.parametrize("command", ["test", "demo"])
def test_a_wrong_comfyui_path_is_one_sentence(root: Path, command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, root / "scripts" / command],
        env={**os.environ, "COMFYUI_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == (
        f"COMFYUI_PATH is '{tmp_path}', where there is no ComfyUI: "
        "set it to the folder that holds ComfyUI's main.py, or unset it."
    )


def test_comfyui_that_cannot_be_installed_is_said_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfyui_location, "DEFAULT", tmp_path / "ComfyUI")
    monkeypatch.setattr(comfyui_location, "LOGS", tmp_path / "logs")
    # A Python without comfy-cli fails as comfy-cli does without a network.
    monkeypatch.setattr(comfyui_location, "make_environment", lambda *_: Path(sys.executable))
    with pytest.raises(SetupError, match=r"could not install ComfyUI .* set COMFYUI_PATH"):
        install_comfyui()


def test_no_comfy_cli_is_said_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> Path:
        raise SetupError("The packages could not be installed.")

    monkeypatch.setattr(comfyui_location, "make_environment", unreachable)
    with pytest.raises(NotInstalledError, match=r"could not be installed\. .* set COMFYUI_PATH"):
        install_comfyui()


def test_links_are_made_once_and_moved(tmp_path: Path) -> None:
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "in" / "link"
    for folder in (first, second):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    for folder in (first, first, second):
        link_folder(link, folder)
        assert (link / "file").read_text() == folder.name
    assert (first / "file").exists()


def test_children_keep_bytecode_also_where_it_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    ask = "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"
    answer = subprocess.check_output(
        [sys.executable, "-c", ask], env=environment_variables(), text=True
    )
    assert answer.strip() == f"False {BYTECODE}"
