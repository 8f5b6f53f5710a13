"""What the pack's routes share: answers in JSON, refusals in a sentence, and who may write.

ComfyUI itself refuses writes from other sites' pages, unless it was started with
--enable-cors-header. These routes always do: what they change is files.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PAGE = "Comfy-User"  # what `api.fetchApi` of ComfyUI's page adds to all that it asks for


class Refused(Exception):
    """A request that is answered with {"error": sentence}."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def answered(
    *conflicts: type[Exception],
) -> Callable[[Callable[[web.Request], Awaitable[Any]]], Handler]:
    """Its answer as JSON; what it refuses or cannot do as {"error": sentence}.

    Exceptions of `conflicts` are answered with 409: what was asked for does not fit what there is.
    """

    def decorate(handler: Callable[[web.Request], Awaitable[Any]]) -> Handler:
        @functools.wraps(handler)
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                found = await handler(request)
            except Refused as refused:
                return web.json_response({"error": str(refused)}, status=refused.status)
            except conflicts as refused:
                return web.json_response({"error": str(refused)}, status=409)
            except (OSError, RuntimeError) as error:
                return web.json_response({"error": str(error)}, status=500)
            return found if isinstance(found, web.StreamResponse) else web.json_response(found)

        return answer

    return decorate


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent, to routes that change something. A form of another site cannot
    send this content type, and a script there is not let in by its origin.
    """
    check_origin(request)
    if request.content_type != "application/json":
        raise Refused(415, "Send the content type application/json.")
    try:
        body = await request.json() if request.can_read_body else {}
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    return body


def check_origin(request: web.Request) -> None:
    """Refuse what a page of another origin asks for. Scripts that are no pages name no origin."""
    site = request.headers.get("Sec-Fetch-Site")  # no page's script can set it
    origin = request.headers.get("Origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:  # browsers leave it out over http to another machine, but name the origin
        own = origin is None or _is_own(origin, request)
    if not own:
        raise Refused(403, "This may be asked for from ComfyUI's own page or from a script only.")


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether a page of this origin is ComfyUI's.

    A proxy may leave the port out of Host, or put its own there. Then the host's name must be the
    same and ComfyUI's page be known by a header that it always sends: the browser lets a page of
    another origin send none that ComfyUI does not allow, and it allows two others at most.
    """
    page, asked = _place(origin), _place(f"{request.scheme}://{request.host}")
    if page is None or asked is None or page[0] != asked[0]:
        return False
    return page == asked or _PAGE in request.headers


def _place(address: str) -> tuple[str, int | None] | None:
    """Host and port; None for an address that has none, as the origin "null"."""
    try:
        parts = urlsplit(address.lower())
        # Behind a proxy that speaks https the server itself does not: the ports tell.
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
