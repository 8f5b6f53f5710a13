"""Fixtures of the background tests: servers that start quickly, and what a run finds in peace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .background_client import RunsClient, Summary
from .background_graph import TINY, calibration, rewards, tensors, write_tiny_model
from .background_trouble import set_trouble
from .forked_server import ForkedServer, ForkServer

StartServer = Callable[..., tuple[ForkedServer, RunsClient]]


@dataclass(frozen=True)
class Found:
    """What a run has measured and found, exactly."""

    rewards: list[tuple[Any, ...]]
    tensors: dict[str, bytes]
    gain: dict[str, float]

    @classmethod
    def read(cls, server: ForkedServer, ended: Summary) -> Found:
        """Of a finished run."""
        preset = server.models / "calibri" / ended["preset"]
        return cls(rewards(server.folder / "user", ended["id"]), tensors(preset), ended["gain"])


Undisturbed = Callable[..., Found]


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
def undisturbed(
    fork_server: ForkServer, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """What a run of these settings finds on a server where nothing else happens."""
    known: dict[str, Found] = {}
    with ExitStack() as running:
        servers: list[ForkedServer] = []

        def find(trouble: dict[str, Any] | None = None, **settings: Any) -> Found:
            key = repr((trouble, sorted(settings.items())))
            if key in known:
                return known[key]
            if not servers:
                folder = tmp_path_factory.mktemp("undisturbed")
                write_tiny_model(folder / "base" / "models")
                servers.append(running.enter_context(ForkedServer(fork_server, comfyui, folder)))
            (server,) = servers
            set_trouble(server, **(trouble or {}))
            client, run = RunsClient(server.url), f"run-{len(known)}"
            client.queue(calibration(TINY, run, **settings))
            known[key] = Found.read(server, client.finished(run))
            return known[key]

        yield find
