"""The presets over HTTP: /calibri/presets and /calibri/trash. The files are `shelf.py`'s.

Everybody who may use this ComfyUI sees the same presets, with --multi-user too: like models they
are the machine's.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.http import HttpProcessingError

from ..answers import Handler, Refused, answered, check_origin, json_body
from ..background.comfy_queue import server

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .shelf import Place

MODEL = "model"  # the query parameter of the list
FIELD = "file"  # of an upload
_PIECE = 2**16  # bytes

Doing = Callable[[web.Request], Awaitable["BaseModel | web.StreamResponse"]]

_is_offered = False


def start() -> None:
    """Offer the routes; nothing in a process without a server."""
    global _is_offered
    running = server()
    if running is not None and not _is_offered:
        add(running.routes)
        _is_offered = True


def add(table: web.RouteTableDef) -> None:
    """Add the routes to ComfyUI's table."""
    table.get("/calibri/presets")(_told(_list))
    table.post("/calibri/presets")(_told(_upload))
    table.post("/calibri/presets/text")(_told(_add_text))
    table.get("/calibri/presets/{name}")(_told(_show))
    table.delete("/calibri/presets/{name}")(_told(_discard))
    table.get("/calibri/presets/{name}/file")(_told(_download))
    table.get("/calibri/presets/{name}/text")(_told(_write_text))
    table.get("/calibri/presets/{name}/thumbnail")(_told(_thumbnail))
    table.post("/calibri/presets/{name}/rename")(_told(_rename))
    table.get("/calibri/trash")(_told(_list_trash))
    table.post("/calibri/trash/{id}/restore")(_told(_restore))


async def _list(request: web.Request) -> BaseModel:
    return await asyncio.to_thread(_listing, request.query.get(MODEL))


async def _show(request: web.Request) -> BaseModel:
    from .told import whole

    place = _found(request)
    return await asyncio.to_thread(lambda: whole(place, place.preset()))


async def _download(request: web.Request) -> web.StreamResponse:
    place = _found(request)
    return _as_file(await asyncio.to_thread(place.path.read_bytes), place.path.name)


async def _write_text(request: web.Request) -> BaseModel:
    from ...calibri.preset_text import write_preset_text
    from .schemas import Text

    place = _found(request)
    return Text(text=await asyncio.to_thread(lambda: write_preset_text(place.preset())))


async def _thumbnail(request: web.Request) -> web.StreamResponse:
    place = _found(request)
    picture = (await asyncio.to_thread(place.preset)).thumbnail
    if not picture:
        raise Refused(404, f"The preset {place.name!r} has no picture.")
    safe = {"X-Content-Type-Options": "nosniff"}
    return web.Response(body=picture, content_type="image/jpeg", headers=safe)


async def _upload(request: web.Request) -> web.StreamResponse:
    check_origin(request)
    if request.content_type != "multipart/form-data":
        raise Refused(415, f"Send the file as multipart/form-data, in the field {FIELD!r}.")
    name, data = await _uploaded(request)
    return _created(*await asyncio.to_thread(_keep, data, name))


async def _add_text(request: web.Request) -> web.StreamResponse:
    from .schemas import NewText

    sent = await _body(request, NewText)
    return _created(*await asyncio.to_thread(_keep_text, sent.text, sent.name))


async def _rename(request: web.Request) -> BaseModel:
    from . import shelf
    from .schemas import Rename
    from .told import whole

    sent, place = await _body(request, Rename), _found(request)
    renamed = await asyncio.to_thread(shelf.rename, place, sent.to)
    return await asyncio.to_thread(lambda: whole(renamed, renamed.preset()))


async def _discard(request: web.Request) -> BaseModel:
    from . import shelf
    from .schemas import Discarded, Nothing

    await _body(request, Nothing)
    place = _found(request)
    folder = await asyncio.to_thread(shelf.discard, place)
    return Discarded(id=folder.name, name=place.name, folder=str(folder))


async def _list_trash(request: web.Request) -> BaseModel:
    from . import shelf
    from .schemas import Discarded, Trash

    found = await asyncio.to_thread(shelf.discarded)
    return Trash(discarded=[Discarded(id=i, name=n, folder=str(f)) for i, n, f in found])


async def _restore(request: web.Request) -> BaseModel:
    from . import shelf
    from .schemas import Nothing
    from .told import whole

    await _body(request, Nothing)
    place = await asyncio.to_thread(shelf.restore, request.match_info["id"])
    return await asyncio.to_thread(lambda: whole(place, place.preset()))


def _told(handler: Doing) -> Handler:
    """Answers with the model that the handler gives, or with its sentence."""

    async def tell(request: web.Request) -> Any:
        from .shelf import MissingError, TakenError

        try:
            found = await handler(request)
        except MissingError as missing:
            raise Refused(404, str(missing)) from None
        except TakenError as taken:
            raise Refused(409, str(taken)) from None
        except FileNotFoundError:
            raise Refused(404, "The preset has just gone: list /calibri/presets.") from None
        except ValueError as wrong:  # a file or a text that is no preset, a name that cannot be one
            raise Refused(422, str(wrong)) from None
        return found if isinstance(found, web.StreamResponse) else found.model_dump()

    return answered()(tell)


def _found(request: web.Request) -> Place:
    from . import shelf

    return shelf.find(request.match_info["name"])


async def _body(request: web.Request, kind: Any) -> Any:
    """The body as this model. Refuses anything else with what is wrong first."""
    from pydantic import ValidationError

    sent = await json_body(request)
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(422, f"{where}: {first['msg']}.") from None


def _listing(model_name: str | None) -> BaseModel:
    from ...calibri.presets import PresetError
    from . import shelf
    from .model_fit import ModelAtHand, UnreadableModelError
    from .schemas import Broken, Listing
    from .told import summary

    model, error = None, ""
    if model_name is not None:
        try:
            model = ModelAtHand(model_name)
        except UnreadableModelError as unreadable:
            error = str(unreadable)
    presets, broken = [], []
    for place in shelf.places():
        try:
            preset = place.preset()
            fits = None if model is None else model.fits(preset)
            presets.append(summary(place, preset, fits))
        except FileNotFoundError:
            continue  # deleted meanwhile
        except (PresetError, OSError) as wrong:
            broken.append(Broken(name=place.name, error=str(wrong)))
    return Listing(presets=presets, broken=broken, model_error=error)


async def _uploaded(request: web.Request) -> tuple[str, bytes]:
    """Name and bytes of the one file of a form."""
    from ...calibri.presets import MAX_BYTES

    try:
        reader = await request.multipart()
        part = await reader.next()
        if getattr(part, "name", None) != FIELD or not getattr(part, "filename", None):
            raise Refused(400, f"Send one file, in the field {FIELD!r}.")
        data = bytearray()
        while piece := await part.read_chunk(_PIECE):
            data += piece
            if len(data) > MAX_BYTES:
                raise Refused(413, "The file is too large for a preset: send one of Calibri's.")
        return part.filename, bytes(data)
    except (ValueError, AssertionError, HttpProcessingError):  # aiohttp's, for forms that are none
        raise Refused(400, "The form cannot be read: send it as a browser does.") from None


def _keep(data: bytes, name: str) -> tuple[Place, bool]:
    """Check a file as a preset, then keep it as it is. Raises ValueError."""
    from ...calibri.presets import PresetError, load_preset
    from . import shelf
    from .names import SUFFIX

    if not name.lower().endswith(SUFFIX):
        raise ValueError(f"{name[:200]!r} is no preset: send a {SUFFIX} file made by Calibri.")
    with tempfile.TemporaryDirectory(prefix="calibri-") as folder:
        file = Path(folder) / "sent.safetensors"
        file.write_bytes(data)
        try:
            load_preset(file)
        except PresetError as error:
            raise ValueError(str(error).replace(str(file), repr(name[:200]))) from None
    # A browser gives a plain name; whoever gives a path means its last part.
    return shelf.add(data, name[: -len(SUFFIX)].replace("\\", "/").rsplit("/", 1)[-1])


def _keep_text(text: str, name: str | None) -> tuple[Place, bool]:
    """Make a file of a preset's text. Raises ValueError."""
    from ...calibri.preset_text import read_preset_text
    from ...calibri.presets import save_preset
    from . import shelf

    preset = read_preset_text(text)
    with tempfile.TemporaryDirectory(prefix="calibri-") as folder:
        file = Path(folder) / "written.safetensors"
        save_preset(file, preset)
        # A title is no path, and may have no letter that a name can.
        title = re.sub(r"[^\w.+-]+", "-", preset.title).strip(".- ")
        return shelf.add(file.read_bytes(), name or title or "preset")


def _created(place: Place, is_new: bool) -> web.Response:
    from .schemas import Added
    from .told import whole

    answer = Added(preset=whole(place, place.preset()), is_new=is_new)
    return web.json_response(answer.model_dump(), status=201 if is_new else 200)


def _as_file(data: bytes, name: str) -> web.Response:
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    return web.Response(body=data, content_type="application/octet-stream", headers=headers)
