"""The runs over HTTP, for the page and for scripts: /calibri/runs. All thinking is elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..answers import Refused, answered, json_body
from .album import picture_mark, picture_of
from .commands import COMMANDS, CommandError
from .generations import coordinates_of, generations_of
from .registry import BusyError, Registry
from .run import Run, next_revision

_answered = answered(CommandError, BusyError)


def add(table: web.RouteTableDef, registry: Registry, make_room: Callable[[], None]) -> None:
    """Add the routes to ComfyUI's table; `make_room` ends the slice that runs."""

    def found(request: web.Request) -> Run:
        run = registry.find(request.match_info["id"])
        if run is None:
            raise Refused(404, f"There is no run {request.match_info['id']!r}: list /calibri/runs.")
        return run

    def told(run: Run) -> dict[str, Any]:
        return run.summary(registry.waits_for(run))

    @table.get("/calibri/runs")
    @_answered
    async def list_runs(request: web.Request) -> Any:
        # Taken first: what happens to the list from here on is told with a larger one.
        revision = next_revision()
        return {"revision": revision, "runs": [told(run) for run in registry.all()]}

    @table.get("/calibri/runs/{id}")
    @_answered
    async def show(request: web.Request) -> Any:
        run, since = found(request), _since(request)

        def look() -> dict[str, Any]:
            course = generations_of(run, since)
            # Names do not change: whoever asks for what is new has them.
            named = {} if since else {"coordinates": coordinates_of(run)}
            return {**told(run), **named, "course": course, "picture": picture_mark(run)}

        return await asyncio.to_thread(look)

    @table.get("/calibri/runs/{id}/picture")
    @_answered
    async def show_picture(request: web.Request) -> Any:
        picture = await asyncio.to_thread(picture_of, found(request))
        if picture is None:
            raise Refused(404, "The run has no pictures yet: its next validation draws some.")
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return web.Response(body=picture, content_type="image/jpeg", headers=headers)

    @table.post("/calibri/runs/make-room")
    @_answered
    async def empty_the_queue(request: web.Request) -> Any:
        await json_body(request)
        make_room()
        return {}

    @table.post("/calibri/runs/{id}/{command}")
    @_answered
    async def command(request: web.Request) -> Any:
        body = await json_body(request)
        run, name = found(request), request.match_info["command"]
        if name in ("follow", "unfollow"):
            page = body.get("client_id")
            if not isinstance(page, str) or not page:
                raise Refused(400, "client_id must be the page's id, a string.")
            (run.followers.add if name == "follow" else run.followers.discard)(page)
        elif name in COMMANDS:
            await asyncio.to_thread(COMMANDS[name], registry, run)
        else:
            known = ", ".join([*COMMANDS, "follow", "unfollow"])
            raise Refused(404, f"There is no command {name!r}; choose one of {known}.")
        return told(run)

    @table.delete("/calibri/runs/{id}")
    @_answered
    async def delete(request: web.Request) -> Any:
        await json_body(request)
        run = found(request)
        await asyncio.to_thread(registry.delete, run)
        return {"deleted": run.id, "revision": next_revision()}


def _since(request: web.Request) -> int:
    """The generation from which on the course is asked for."""
    text = request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Refused(400, f"since is {text[:40]!r}: give a generation's number, 0 or more.")
    return int(text)
