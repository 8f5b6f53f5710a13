"""A connection to Ray: the cluster that is named, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

OBJECT_STORE = 256 * 2**20  # bytes; batches travel as rewards, only a report's pictures are large
HOW = "pip install 'comfyui-calibri[ray]'"


def connect(address: str | None, cpus: float | None = None) -> Any:
    """Ray, connected to `address`, else to RAY_ADDRESS, else to a cluster on this machine alone
    with `cpus` processors, where None is as many as there are.

    Raises ValueError where Ray is not installed or nobody answers at the address.
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
    if not named:
        count = max(os.cpu_count() or 1, int(-(-(cpus or 1) // 1)))
        options |= {"num_cpus": count, "include_dashboard": False}
        options["object_store_memory"] = OBJECT_STORE
        # Whoever reaches a Ray can run code in it: this one is nobody else's.
        options["_node_ip_address"] = "127.0.0.1"
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=named or "local", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"Ray does not answer at {named or 'this machine'} ({error}): start it with `ray start "
            "--head`, or give its address with --address."
        ) from error
    finally:
        # Ray takes SIGTERM for itself and ends with a code of its own.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)
    return ray
