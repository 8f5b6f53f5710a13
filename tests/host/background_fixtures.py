"""Fixtures of the background tests: servers that start quickly, one folder for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .background_client import RunsClient
from .background_graph import DEMO, TINY, write_tiny_model
from .forked_server import ForkedServer, ForkServer

StartServer = Callable[..., tuple[ForkedServer, RunsClient]]


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """The libraries, imported once for all servers of the background tests."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    with ForkServer(tmp_path_factory.mktemp("fork")) as running:
        yield running


@pytest.fixture
def start_server(fork_server: ForkServer, comfyui: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with these command line options, in a folder of that name."""
    with ExitStack() as running:

        def start(*options: str, name: str = "server") -> tuple[ForkedServer, RunsClient]:
            server = ForkedServer(fork_server, comfyui, tmp_path / name, options=options)
            write_tiny_model(server.models)
            server = running.enter_context(server)
            return server, RunsClient(server.url)

        yield start


@pytest.fixture(scope="session")
def demo(newest: bool) -> str:
    """The demo model's file, or the tiny one where ComfyUI cannot load it."""
    return DEMO if newest else TINY
