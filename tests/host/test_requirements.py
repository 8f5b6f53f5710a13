"""`pip install -r requirements.txt` into ComfyUI's environment adds packages and changes none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from comfyui_calibri.rewards.environment import find_uv, python_of

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def uv() -> list[str]:
    found = find_uv()
    if found is None:
        pytest.skip("uv is not there: pip install uv")
    return found


def run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def python(uv: list[str], comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment in which, as far as an installer can tell, ComfyUI's requirements are.

    Resolved without ours, as they are for somebody who has installed ComfyUI alone; the packages
    are only their names and versions, which is what `--dry-run` reads.
    """
    folder = tmp_path_factory.mktemp("comfyui") / "environment"
    run(*uv, "venv", "--python", sys.executable, str(folder))
    into = ("--python", str(python_of(folder)))
    resolved = run(*uv, "pip", "compile", *into, "--no-header", str(comfyui / "requirements.txt"))
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)", resolved, re.MULTILINE)
    assert {"torch", "numpy", "transformers"} <= {name for name, _ in pinned}
    (packages,) = {*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")}
    for name, version in pinned:
        info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        (info / "RECORD").write_text("")
        (info / "INSTALLER").write_text("uv\n")
    return str(python_of(folder))


def changes(uv: list[str], python: str, *wanted: str) -> tuple[set[str], set[str]]:
    """The packages that installing `wanted` would add, and those it would change or remove."""
    printed = run(*uv, "pip", "install", "--dry-run", "--python", python, *wanted)
    signs = re.findall(r"^ ([+~-]) ([\w.-]+)==", printed, re.MULTILINE)
    changed = {name for sign, name in signs if sign in "-~"}
    return {name for sign, name in signs if sign == "+"} - changed, changed


def test_our_requirements_add_and_change_nothing(root: Path, uv: list[str], python: str) -> None:
    added, changed = changes(uv, python, "-r", str(root / "requirements.txt"))
    assert not changed
    assert {"cma", "matplotlib"} <= added


def test_a_requirement_that_changes_something_would_be_seen(uv: list[str], python: str) -> None:
    _, changed = changes(uv, python, "numpy<2")
    assert "numpy" in changed
