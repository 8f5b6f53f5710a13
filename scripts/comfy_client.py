"""Talk to a running ComfyUI as its page does: queue a prompt over HTTP, follow it over the
websocket.

Needs aiohttp, which every ComfyUI environment has.
"""

from __future__ import annotations

import asyncio
import json
import struct
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from workflow_to_prompt import workflow_to_prompt

TEXT_FRAME = 3  # ComfyUI's BinaryEventTypes.TEXT

Event = Callable[[str, dict[str, Any]], None]


class PromptError(RuntimeError):
    """ComfyUI refused a prompt, or a node failed or was cancelled; the message says which and
    why."""


@dataclass(frozen=True)
class PromptResult:
    """What a prompt left: its id and, for each output node, what it showed (images, text)."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]]


class ComfyClient:
    """One page's worth of conversation with the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client_id = uuid.uuid4().hex

    def get_bytes(self, path: str) -> bytes:
        """The body of GET `path`."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return bytes(answer.read())

    def get_json(self, path: str) -> Any:
        """The JSON of GET `path`."""
        return json.loads(self.get_bytes(path))

    def prompt_from_workflow(self, file: Path) -> dict[str, dict[str, Any]]:
        """The prompt for a workflow file as the page saves it."""
        return workflow_to_prompt(
            json.loads(file.read_text(encoding="utf-8")), self.get_json("/object_info")
        )

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queue a prompt and return its id; PromptError with the server's reasons if it is not
        valid."""
        try:
            answer = self._post("/prompt", {"prompt": prompt, "client_id": self.client_id})
        except urllib.error.HTTPError as refused:
            raise PromptError(_refusal(refused.read())) from None
        return str(json.loads(answer)["prompt_id"])

    def interrupt(self) -> None:
        """Cancel what runs now."""
        self._post("/interrupt", {})

    def run(
        self, prompt: Mapping[str, Any], on_event: Event | None = None, seconds: float = 600
    ) -> PromptResult:
        """Queue `prompt`, hand every event about it to `on_event(kind, data)` and return what it
        left.

        PromptError if it is refused, fails, is cancelled, or is not done within `seconds`.
        """
        try:
            return asyncio.run(asyncio.wait_for(self._follow(prompt, on_event), seconds))
        except asyncio.TimeoutError:
            raise PromptError(f"The prompt was not done within {seconds:.0f} s.") from None

    def image(self, shown: Mapping[str, str]) -> bytes:
        """The file behind an entry of `outputs[node]["images"]`."""
        keys = ("filename", "subfolder", "type")
        return self.get_bytes("/view?" + urlencode({k: shown.get(k, "") for k in keys}))

    async def _follow(self, prompt: Mapping[str, Any], on_event: Event | None) -> PromptResult:
        address = f"{self.url}/ws?clientId={self.client_id}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket,
        ):
            prompt_id = await asyncio.to_thread(self.queue, prompt)
            async for message in socket:
                kind, data = _decode(message)
                if data.get("prompt_id") not in (None, prompt_id):
                    continue
                if on_event is not None:
                    on_event(kind, data)
                # The last event of a prompt, sent when its history is written.
                if kind == "executing" and data["node"] is None and "prompt_id" in data:
                    history = self.get_json(f"/history/{prompt_id}")[prompt_id]
                    _raise_failure(history["status"])
                    return PromptResult(prompt_id, history["outputs"])
        raise PromptError("ComfyUI closed the connection: see its log.")

    def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


def _decode(message: aiohttp.WSMessage) -> tuple[str, dict[str, Any]]:
    """(kind, data) of a websocket frame; pictures come as ("preview", {})."""
    if message.type == aiohttp.WSMsgType.TEXT:
        event = json.loads(message.data)
        return event["type"], event.get("data") or {}
    if message.type == aiohttp.WSMsgType.BINARY:
        frame = message.data
        if struct.unpack_from(">I", frame)[0] == TEXT_FRAME:
            end = 8 + struct.unpack_from(">I", frame, 4)[0]
            return "progress_text", {"node": frame[8:end].decode(), "text": frame[end:].decode()}
    return "preview", {}


def _refusal(body: bytes) -> str:
    """One sentence from the server's answer to a prompt that is not valid."""
    answer = json.loads(body)
    reasons = [
        f"{node['class_type']} (node {number}): {error['message']}: {error['details']}"
        for number, node in (answer.get("node_errors") or {}).items()
        for error in node["errors"]
    ]
    return f"ComfyUI refused the prompt: {'; '.join(reasons) or answer['error']['message']}"


def _raise_failure(status: Mapping[str, Any]) -> None:
    if status["status_str"] == "success":
        return
    for kind, data in status["messages"]:
        if kind == "execution_error":
            raise PromptError(
                f"{data['node_type']} (node {data['node_id']}): {data['exception_message'].strip()}"
            )
    raise PromptError("The prompt was cancelled.")
