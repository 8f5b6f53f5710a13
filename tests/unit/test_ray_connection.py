"""Ray that is not there, does not answer or is another: one sentence each, and soon."""

from __future__ import annotations

import importlib.util
import signal
import socket

import pytest

from comfyui_calibri.calibri import ray_connection


def test_ray_that_is_not_installed_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'comfyui-calibri\[ray\]'"):
        ray_connection.check_installed()


def test_nobody_at_the_address_is_said_at_once() -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as taken:  # a port where nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"Ray does not answer at {address} .*--address"):
            ray_connection.connect(address)
    with pytest.raises(ValueError, match=r"Ray does not answer at 127\.0\.0\.1:99999 "):
        ray_connection.connect("127.0.0.1:99999")


def test_a_cluster_that_asks_for_a_token_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.2:6379")
    told = ray_connection._refused("head:6379", error, listens=True)
    assert told.endswith("set RAY_AUTH_MODE=token here, as it was there.")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "token" not in ray_connection._refused("head:6379", error, listens=True)


def test_a_cluster_of_another_version_is_told_with_both() -> None:
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.49.0\n    Python: 3.12.3\n"
        "This process on node 10.0.0.2 was started with:\n    Ray: 2.60.0\n    Python: 3.12.3\n"
    )
    assert ray_connection._refused("head:6379", error) == (
        "The Ray cluster at head:6379 is of another version (the cluster's, then this machine's: "
        "Ray 2.49.0, Python 3.12.3, Ray 2.60.0, Python 3.12.3): install the same Ray and Python on "
        "all machines."
    )


def test_sigterm_is_ours_again_and_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("terminated"))
    try:
        with pytest.raises(SystemExit):
            _connecting_is_terminated()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["terminated", "terminated"]


def _connecting_is_terminated() -> None:
    with ray_connection._own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
        raise SystemExit(signal.SIGTERM)
