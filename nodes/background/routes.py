"""The runs over HTTP, for the page and for scripts: /calibri/runs. All thinking is elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..album import picture_mark, picture_of
from ..answers import Refused, answered, json_body
from .commands import COMMANDS, CommandError, act
from .observed import Observed
from .others import Others
from .registry import BusyError, Registry
from .run import Run, next_revision

_answered = answered(CommandError, BusyError)


def add(
    table: web.RouteTableDef, registry: Registry, others: Others, make_room: Callable[[], None]
) -> None:
    """Add the routes to ComfyUI's table; `make_room` ends the slice that runs."""

    async def found(request: web.Request) -> Run | Observed:
        run_id = request.match_info["id"]
        run = await asyncio.to_thread(lambda: others.find(run_id) or registry.find(run_id))
        if run is None:
            raise Refused(404, f"There is no run {run_id!r}: list /calibri/runs.")
        return run

    def told(run: Run | Observed) -> dict[str, Any]:
        return run.summary(registry.waits_for(run)) if isinstance(run, Run) else run.summary()

    def listed() -> list[dict[str, Any]]:
        observed = others.all()
        theirs = {run.id for run in observed}
        mine = [run for run in registry.all() if run.id not in theirs]
        return [told(run) for run in (*mine, *observed)]

    @table.get("/calibri/runs")
    @_answered
    async def list_runs(request: web.Request) -> Any:
        # Taken first: what happens to the list from here on is told with a larger one.
        revision = next_revision()
        return {"revision": revision, "runs": await asyncio.to_thread(listed)}

    @table.get("/calibri/runs/{id}")
    @_answered
    async def show(request: web.Request) -> Any:
        run, since = await found(request), _since(request)

        def look() -> dict[str, Any]:
            course = run.course(since)
            # Names do not change: whoever asks for what is new has them.
            named = {} if since else {"coordinates": run.coordinates()}
            return {**told(run), **named, "course": course, "picture": picture_mark(run.folder)}

        return await asyncio.to_thread(look)

    @table.get("/calibri/runs/{id}/picture")
    @_answered
    async def show_picture(request: web.Request) -> Any:
        run = await found(request)
        picture = await asyncio.to_thread(picture_of, run.folder)
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
        run, name = await found(request), request.match_info["command"]
        if name in ("follow", "unfollow"):
            page = body.get("client_id")
            if not isinstance(page, str) or not page:
                raise Refused(400, "client_id must be the page's id, a string.")
            (run.followers.add if name == "follow" else run.followers.discard)(page)
        elif name in COMMANDS:
            await asyncio.to_thread(act, registry, run, name)
        else:
            known = ", ".join([*COMMANDS, "follow", "unfollow"])
            raise Refused(404, f"There is no command {name!r}; choose one of {known}.")
        return await asyncio.to_thread(told, run)

    @table.delete("/calibri/runs/{id}")
    @_answered
    async def delete(request: web.Request) -> Any:
        await json_body(request)
        run = await found(request)
        if isinstance(run, Run):
            await asyncio.to_thread(registry.delete, run)
        else:
            await asyncio.to_thread(others.delete, run)
        return {"deleted": run.id, "revision": next_revision()}


def _since(request: web.Request) -> int:
    """The generation from which on the course is asked for."""
    text = request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Refused(400, f"since is {text[:40]!r}: give a generation's number, 0 or more.")
    return int(text)
