"""ComfyUI inside the test process: `import comfy`, `import nodes` and the pack's own nodes work in
tests here.

On the CPU, and with its folders in a temporary place: nothing is written into the ComfyUI under
test.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from comfyui_location import OLDEST_SUPPORTED, find_comfyui

_comfyui = find_comfyui()
assert _comfyui is not None, "tests/conftest.py leaves this folder out where there is no ComfyUI"
sys.path.insert(0, str(_comfyui))

from comfy.cli_args import args  # noqa: E402 - ComfyUI's folder has just been put on the path

_folders = tempfile.TemporaryDirectory(prefix="calibri-host-")
args.cpu = True
args.base_directory = _folders.name
(Path(_folders.name) / "custom_nodes").mkdir()

# Fixtures for all of tests/host.
from .background_fixtures import (  # noqa: E402, F401
    fork_server,
    start_server,
    undisturbed,
)
from .dits.fixtures import case, model  # noqa: E402, F401
from .tiny_fixtures import output, steady_memory  # noqa: E402, F401


@pytest.fixture(scope="session")
def newest() -> bool:
    """Whether this is the newest supported ComfyUI: there, every class must exist."""
    from comfyui_version import __version__

    return __version__ != OLDEST_SUPPORTED
