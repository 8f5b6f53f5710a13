"""The package as pip and ComfyUI's registry see it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from comfyui_location import OLDEST_SUPPORTED, find_comfyui, find_oldest_comfyui

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it


def read_requirements(file: Path) -> dict[str, Requirement]:
    """Package name -> requirement, for a requirements.txt."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def with_dependencies(requirements: list[Requirement]) -> list[Requirement]:
    """`requirements` and all that they require in turn, on this machine."""
    every, seen = list(requirements), set()
    for requirement in every:
        if requirement.name in seen:
            continue
        seen.add(requirement.name)
        try:
            needed = requires(requirement.name) or []
        except PackageNotFoundError:
            continue  # not needed on this platform or Python
        inner = [Requirement(line) for line in needed]
        every += [r for r in inner if r.marker is None or r.marker.evaluate({"extra": ""})]
    return every


def test_importing_the_root_package_needs_neither_torch_nor_comfyui() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'comfy', 'comfy_api', 'folder_paths'):\n"
        "    sys.modules[name] = None\n"
        "import comfyui_calibri\n"
        "assert comfyui_calibri.WEB_DIRECTORY == './web'\n"
    )
    # Somewhere else than the clone, whose folders would shadow ComfyUI's.
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(sys.executable).anchor)


@pytest.mark.parametrize("find", [find_comfyui, find_oldest_comfyui])
def test_requirements_change_no_package_of_comfyui(
    root: Path, find: Callable[[], Path | None]
) -> None:
    comfyui = find()
    if comfyui is None:
        pytest.skip("there is no ComfyUI to compare with")
    theirs = read_requirements(comfyui / "requirements.txt")
    ours = read_requirements(root / "requirements.txt")
    assert not ours.keys() & theirs.keys()
    for requirement in with_dependencies(list(ours.values())):
        name = canonicalize_name(requirement.name)
        if name not in theirs:
            continue
        limits = {limit.operator for limit in theirs[name].specifier}
        lowest = [s.version for s in theirs[name].specifier if s.operator in (">=", "==", "~=")]
        assert "==" not in limits, f"{requirement} touches {theirs[name]}, which ComfyUI pins"
        for version in lowest:
            assert requirement.specifier.contains(version), (
                f"{requirement} would move {theirs[name]}"
            )


def test_every_package_folder_is_installed(root: Path) -> None:
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(("comfyui_calibri", *file.parent.relative_to(root).parts))
        for pattern in ("__init__.py", "[a-z]*/__init__.py", "[a-z]*/[a-z]*/__init__.py")
        for file in root.glob(pattern)
    }
    assert set(tools["packages"]) == folders


def test_the_oldest_supported_comfyui_is_the_one_that_is_tested(root: Path) -> None:
    comfy = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["comfy"]
    assert comfy["requires-comfyui"] == f">={OLDEST_SUPPORTED}"
