"""Who may change presets and runs over HTTP: ComfyUI's own page and scripts, and no page of another
site, also where ComfyUI lets other sites in and behind proxies."""

# Fixtures are imported, and parameters called as they are.
# ruff: noqa: F811

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .forked_server import ForkedServer
from .library_client import JSON, Ask, at, form, names
from .library_fixtures import (  # the fixtures for every test here
    DEMO,
    call,  # noqa: F401
    preset,  # noqa: F401
    put,  # noqa: F401
    server,  # noqa: F401
)

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    "stranger",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://evil.example:bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
def test_a_page_of_another_site_changes_nothing(
    call: Ask, put: Callable[..., Path], stranger: dict[str, str]
) -> None:
    data = put("night.safetensors").read_bytes()
    name = "night.safetensors"
    body, headers = form("sent.safetensors", data + b"")
    for method, path, sent, own in (
        ("POST", "/calibri/presets", body, headers),
        ("POST", "/calibri/presets/text", {"text": "x"}, JSON),
        ("POST", at(name, "/rename"), {"to": "x"}, JSON),
        ("DELETE", at(name), {}, JSON),
        ("POST", "/calibri/trash/x/restore", {}, JSON),
        ("POST", "/calibri/runs/make-room", {}, JSON),
        ("DELETE", "/calibri/runs/x", {}, JSON),
    ):
        refused = call(method, path, sent, headers={**own, **stranger})
        assert refused.status == 403, (method, path)
        assert "own page" in refused.sentence
    # What a form on any page can send without asking.
    plain = call("DELETE", at(name), b"{}", headers={"Content-Type": "text/plain"})
    assert plain.status == 415
    assert names(call) == sorted([DEMO, name])


def test_its_own_page_is_let_in(call: Ask, put: Callable[..., Path], server: ForkedServer) -> None:
    put("night.safetensors")
    own = {"Origin": server.url}
    address = at("night.safetensors", "/rename")
    assert call("POST", address, {"to": "day"}, headers={**JSON, **own}).status == 200
    # Behind a proxy the host is another one, and the browser knows better.
    proxied = {"Origin": "https://my.example", "Sec-Fetch-Site": "same-origin"}
    address = at("day.safetensors", "/rename")
    assert call("POST", address, {"to": "night"}, headers={**JSON, **proxied}).status == 200


@pytest.mark.parametrize(
    ("asked", "page", "known_by", "status"),
    [
        # A proxy on port 8080 that leaves the port out of Host, or puts its own there.
        ("my.example", "http://my.example:8080", {"Comfy-User": ""}, 200),
        ("my.example:8188", "http://my.example", {"Comfy-User": ""}, 200),
        ("my.example", "http://my.example:8080", {}, 403),
        ("my.example", "http://evil.example", {"Comfy-User": ""}, 403),
        ("my.example", "null", {"Comfy-User": ""}, 403),
        (
            "my.example",
            "http://my.example:8080",
            {"Comfy-User": "", "Sec-Fetch-Site": "same-site"},
            403,
        ),
    ],
)
def test_a_proxy_that_changes_the_port_keeps_its_own_page_in(
    call: Ask,
    put: Callable[..., Path],
    asked: str,
    page: str,
    known_by: dict[str, str],
    status: int,
) -> None:
    put("night.safetensors")
    headers = {**JSON, "Host": asked, "Origin": page, **known_by}
    answer = call("POST", at("night.safetensors", "/rename"), {"to": "day"}, headers=headers)
    assert answer.status == status


def test_a_browser_is_not_allowed_to_send_what_the_page_is_known_by(call: Ask) -> None:
    """What the rule above rests on: ComfyUI allows other pages no such header."""
    wish = {
        "Origin": "http://my.example:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,comfy-user",
    }
    answer = call("OPTIONS", at("night.safetensors", "/rename"), headers=wish)
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert "content-type" in allowed
    assert "*" not in allowed
    assert "comfy-user" not in allowed
