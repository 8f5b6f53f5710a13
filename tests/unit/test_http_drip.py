"""A server whose answer comes byte by byte and never ends keeps no thread and no connection."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from comfyui_calibri.rewards.protocol import RewardUnavailableError

from .http_servers import GREYS, PROMPTS, reward_at

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


def test_a_server_that_drips_is_left() -> None:
    left = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(2**20)
            connection.sendall(HEAD)
            try:
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.02)
            except OSError:
                left.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        reward = reward_at(listening.getsockname()[1], timeout=1, retries=0)
        with pytest.raises(RewardUnavailableError, match="did not answer within 1 s"):
            reward.score(GREYS, PROMPTS)
        assert left.wait(5)
