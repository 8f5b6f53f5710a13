"""The routes under /calibri/ as OpenAPI: `python -m comfyui_calibri.nodes.openapi` prints
docs/openapi.json. Tests hold it against the routes and their answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .background import schemas as runs
from .library import schemas as presets

_COMPONENTS = "#/components/schemas/{model}"
_JSON = "application/json"
_FILE = "application/octet-stream"
_PICTURE = "image/jpeg"
_COMMANDS = ["pause", "resume", "stop", "finish", "save", "follow", "unfollow"]
_PARAMETERS: dict[str, dict[str, Any]] = {
    "name": {
        "description": "a preset's file below models/calibri; '/' is written %2F",
        "schema": {"type": "string", "minLength": 1},
    },
    "id": {"description": "from the list", "schema": {"type": "string", "minLength": 1}},
    "command": {"description": "what is to be done", "schema": {"enum": _COMMANDS}},
    "model": {
        "description": "a model's file, as its loader names it: `fits` tells what fits it",
        "schema": {"type": "string"},
    },
    "since": {
        "description": "the generation to tell from",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
}


@dataclass(frozen=True)
class Operation:
    """One route: what it takes, what it answers, and with which statuses it refuses."""

    method: str
    path: str
    summary: str
    answer: type[BaseModel] | str  # a model, or a content type
    body: type[BaseModel] | None = None
    refuses: Sequence[int] = ()
    query: Sequence[str] = ()
    creates: bool = False  # 201 too
    is_upload: bool = False


_WRITE = (400, 403, 415)
OPERATIONS = (
    Operation("get", "/calibri/presets", "All presets", presets.Listing, query=["model"]),
    Operation(
        *("post", "/calibri/presets", "Keep a preset's file; it overwrites nothing"),
        *(presets.Added, None, (*_WRITE, 413, 422)),
        creates=True,
        is_upload=True,
    ),
    Operation(
        *("post", "/calibri/presets/text", "Make a file of a preset's text"),
        *(presets.Added, presets.NewText, (*_WRITE, 422)),
        creates=True,
    ),
    Operation(
        *("get", "/calibri/presets/{name}", "One preset, with its coefficients"),
        *(presets.Whole, None, (404, 422)),
    ),
    Operation(
        *("delete", "/calibri/presets/{name}", "Put a preset into the trash"),
        *(presets.Discarded, presets.Nothing, (*_WRITE, 404, 409, 422)),
    ),
    Operation("get", "/calibri/presets/{name}/file", "The file itself", _FILE, None, (404,)),
    Operation(
        *("get", "/calibri/presets/{name}/text", "The preset as text"),
        *(presets.Text, None, (404, 422)),
    ),
    Operation(
        *("get", "/calibri/presets/{name}/thumbnail", "Its picture"),
        *(_PICTURE, None, (404, 422)),
    ),
    Operation(
        *("post", "/calibri/presets/{name}/rename", "Give it another name"),
        *(presets.Whole, presets.Rename, (*_WRITE, 404, 409, 422)),
    ),
    Operation("get", "/calibri/trash", "Presets that were deleted", presets.Trash),
    Operation(
        *("post", "/calibri/trash/{id}/restore", "Take a preset out of the trash"),
        *(presets.Whole, presets.Nothing, (*_WRITE, 404, 422)),
    ),
    Operation("get", "/calibri/runs", "All calibrations", runs.Runs),
    Operation(
        *("get", "/calibri/runs/{id}", "One calibration and its course"),
        *(runs.WatchedRun, None, (400, 404)),
        query=["since"],
    ),
    Operation(
        *("get", "/calibri/runs/{id}/picture", "Held-out prompts, plain above calibrated"),
        *(_PICTURE, None, (404,)),
    ),
    Operation(
        *("post", "/calibri/runs/make-room", "End the slice that runs, as a prompt would"),
        *(runs.Done, runs.Command, _WRITE),
    ),
    Operation(
        *("post", "/calibri/runs/{id}/{command}", "Pause, resume, stop, finish, save …"),
        *(runs.Run, runs.Command, (*_WRITE, 404, 409)),
    ),
    Operation(
        *("delete", "/calibri/runs/{id}", "Put a calibration into the trash"),
        *(runs.Deleted, runs.Command, (*_WRITE, 404, 409)),
    ),
)


def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Calibri for ComfyUI", "version": "1"},
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Any]:
    models: dict[type[BaseModel], Any] = {presets.Error: "serialization"}
    for operation in OPERATIONS:
        if not isinstance(operation.answer, str):
            models[operation.answer] = "serialization"
        if operation.body is not None:
            models[operation.body] = "validation"
    _, found = models_json_schema(list(models.items()), ref_template=_COMPONENTS)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _described(operation: Operation) -> dict[str, Any]:
    answer = operation.answer
    content = {answer: {}} if isinstance(answer, str) else _content(answer)
    responses = {"200": {"description": "done", "content": content}}
    if operation.creates:
        responses["201"] = {"description": "done, and new", "content": content}
    for status in sorted(operation.refuses):
        responses[str(status)] = {"description": "refused", "content": _content(presets.Error)}
    named = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    places = [("path", name) for name in named] + [("query", name) for name in operation.query]
    found: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            {"name": name, "in": place, "required": place == "path", **_PARAMETERS[name]}
            for place, name in places
        ],
        "responses": responses,
    }
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.is_upload:
        file = {"type": "string", "contentMediaType": _FILE}
        form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
        found["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        }
    return found


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": _COMPONENTS.format(model=model.__name__)}}}


if __name__ == "__main__":
    print(json.dumps(document(), indent=2, ensure_ascii=False))
