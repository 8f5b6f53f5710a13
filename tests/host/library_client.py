"""Talk to /calibri/presets as its page does, as a script does, and as nobody should."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

JSON = {"Content-Type": "application/json"}
_BOUNDARY = "calibri-form"


@dataclass(frozen=True)
class Answer:
    """What a route has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        """What a refusal says."""
        found: str = self.json["error"]
        return found


Ask = Callable[..., Answer]
"""`ask` of one server."""


def ask(
    url: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] = JSON
) -> Answer:
    """The answer of any status; `body` is bytes, or what becomes JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, data, dict(headers))
        found = connection.getresponse()
        return Answer(found.status, dict(found.headers), found.read())
    finally:
        connection.close()


def at(name: str, rest: str = "") -> str:
    """A preset's address."""
    return f"/calibri/presets/{quote(name, safe='')}{rest}"


def form(name: str, data: bytes, field: str = "file") -> tuple[bytes, dict[str, str]]:
    """A form with one file, and its headers."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
    body = f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def names(call: Ask) -> list[str]:
    """What the list has."""
    return [each["name"] for each in call("GET", "/calibri/presets").json["presets"]]


@contextmanager
def linked(preset: Path, elsewhere: Path) -> Iterator[Path]:
    """A copy of a preset elsewhere, with links beside the preset to it and to its folder."""
    elsewhere.mkdir(exist_ok=True)
    secret = elsewhere / "secret.safetensors"
    secret.write_bytes(preset.read_bytes())
    links = {"link.safetensors": secret, "linked": elsewhere}
    for name, target in links.items():
        preset.with_name(name).symlink_to(target)
    try:
        yield secret
    finally:
        for name in links:
            preset.with_name(name).unlink()
