"""What all tiers share: the clone's folder, and for tests/host and tests/browser a real ComfyUI
server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from comfy_server import ComfyServer
from comfyui_location import find_comfyui
from project_folders import BYTECODE

if TYPE_CHECKING:
    from comfy_client import ComfyClient

# Before torch is imported, here and in the servers: on tiny models a second thread brings little,
# and beside other busy processes the threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.pycache_prefix, sys.dont_write_bytecode = str(BYTECODE), False

ROOT = Path(__file__).resolve().parents[1]
TIERS = ("host", "browser")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without ComfyUI the tests that need it cannot even be imported."""
    if collection_path.parent == ROOT / "tests" and collection_path.name in TIERS:
        return find_comfyui() is None or None
    return None


def pytest_report_header() -> str:
    found = find_comfyui()
    if found is None:
        return "ComfyUI: not found, tests/host and tests/browser are left out (set COMFYUI_PATH)"
    return f"ComfyUI: {found}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier; files with slow tests come first, or side by side with others
    the last of them would be waited for."""
    for item in items:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        if tier in TIERS:
            item.add_marker(tier)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone's folder."""
    return ROOT


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The root folder of the ComfyUI under test."""
    found = find_comfyui()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """ComfyUI with this pack, on the CPU, in folders of its own; one for the whole run."""
    folder = tmp_path_factory.mktemp("server")
    with ComfyServer(comfyui, folder) as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> ComfyClient:
    """A conversation with `server`."""
    from comfy_client import ComfyClient

    return ComfyClient(server.url)
