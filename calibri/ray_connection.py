"""A connection to Ray: the cluster that is named, or one of its own on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import signal
import socket
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OBJECT_STORE = 256 * 2**20  # bytes; batches travel as rewards, only a report's pictures are large
ANSWERS_WITHIN = 10.0  # seconds; Ray itself would try for minutes
MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
HOW = "pip install 'comfyui-calibri[ray]'"


def check_installed() -> None:
    """Raises ValueError where Ray is not there; nothing is imported."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError(f"--engine ray needs Ray, which is not installed: {HOW}.")


def connect(address: str | None, cpus: float | None = None) -> Any:
    """Ray, connected to `address`, else to RAY_ADDRESS, else to a cluster on this machine alone
    with `cpus` processors, where None is as many as there are.

    Raises ValueError where Ray is not installed, nobody answers at the address, or its cluster is
    of another version of Ray or Python.
    """
    # Nothing is to leave the machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"Ray cannot be imported ({error}): {HOW}.") from error
    if ray.is_initialized():
        return ray
    named = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if named:
        _check_answers(named)
    else:
        count = max(os.cpu_count() or 1, int(-(-(cpus or 1) // 1)))
        options |= {"num_cpus": count, "include_dashboard": False}
        options["object_store_memory"] = OBJECT_STORE
        # Whoever reaches a Ray can run code in it: this one is nobody else's.
        options["_node_ip_address"] = "127.0.0.1"
        _own_token()
    with _own_signals():
        try:
            ray.init(address=named or "local", **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ValueError(_refused(named, error, listens=bool(named))) from error
    return ray


def disconnect() -> None:
    """Leave Ray; a cluster of this machine alone ends with it."""
    import ray

    with _own_signals():
        ray.shutdown()


def _own_token() -> None:
    """A token for this process and its children alone. Ray would leave one in the user's home, and
    clusters that are started later would ask for it."""
    if not any(name in os.environ for name in (MODE, TOKEN, f"{TOKEN}_PATH")):
        os.environ[TOKEN] = secrets.token_hex(32)


def _check_answers(address: str) -> None:
    """Raises ValueError where nobody listens at "host:port"; other forms are Ray's to judge."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise ValueError(_refused(address, error)) from error


def _refused(named: str | None, error: Exception, listens: bool = False) -> str:
    words = textwrap.shorten(str(error), 400)
    if "ersion mismatch" in words:
        found = re.findall(r"(Ray|Python): *([\w.+-]+)", words)
        told = ", ".join(f"{name} {version}" for name, version in found) or words
        return (
            f"The Ray cluster at {named} is of another version (the cluster's, then this "
            f"machine's: {told}): install the same Ray and Python on all machines."
        )
    token = ""
    if listens and MODE not in os.environ:
        token = f" Newer versions of Ray ask for a token: set {MODE}=token here, as it was there."
    return (
        f"Ray does not answer at {named or 'this machine'} ({words}): start it with `ray start "
        f"--head`, or give its address with --address.{token}"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and ends with a code of its own: afterwards it is ours again,
    and one that came meanwhile is heeded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM and callable(ours):
            ours(signal.SIGTERM, None)  # which mostly raises
        raise
    finally:
        signal.signal(signal.SIGTERM, ours)
