"""What a page hears over ComfyUI's websocket, all of it."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from typing import Any

import aiohttp


class Page:
    """An open page: `events` are the (kind, data) that it has heard. A context manager."""

    def __init__(self, url: str) -> None:
        self.client_id = uuid.uuid4().hex
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._address = f"{url}/ws?clientId={self.client_id}"
        self._open, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()))

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of one kind."""
        return [data for heard, data in self.events if heard == kind]

    def __enter__(self) -> Page:
        self._thread.start()
        assert self._open.wait(timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    async def _listen(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._address, max_msg_size=0) as socket,
        ):
            self._open.set()
            while not self._closing.is_set():
                try:
                    message = await asyncio.wait_for(socket.receive(), 0.1)
                except asyncio.TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self.events.append((event["type"], event.get("data") or {}))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self.events.append(("binary", {}))
                else:
                    return
