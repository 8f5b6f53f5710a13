"""docs/openapi.json is what the routes are: all of them are in it, and they answer what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from comfyui_calibri.calibri.preset_text import write_preset_text
from comfyui_calibri.calibri.presets import load_preset, save_preset
from comfyui_calibri.nodes import openapi
from comfyui_calibri.nodes.background import routes as runs
from comfyui_calibri.nodes.folders import DEMO_WEIGHTS
from comfyui_calibri.nodes.library import routes as presets

from .background_client import RunsClient
from .background_graph import TINY, calibration, write_tiny_model
from .forked_server import ForkedServer, ForkServer

DEMO = DEMO_WEIGHTS / "calibri" / "calibri-demo.safetensors"
RUN = "run"
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
# The same examples each time, and few: what is random fails when nobody looks.
FEW = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
API = schemathesis.openapi.from_dict(openapi.document())
OPERATIONS = {
    f"{found.ok().method.upper()} {found.ok().path}": found.ok()
    for found in API.get_all_operations()
}


@pytest.fixture(scope="module")
def server(
    fork_server: ForkServer, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    """A ComfyUI with a finished run."""
    running = ForkedServer(fork_server, comfyui, tmp_path_factory.mktemp("api"))
    write_tiny_model(running.models)
    with running:
        client = RunsClient(running.url)
        small = {"steps": 1, "width": 32, "height": 32, "bucket_size": 2, "generations": 1}
        client.run(calibration(TINY, RUN, **small, validate_every=1, idle_seconds=0.05))
        client.finished(RUN)
        yield running


@pytest.fixture
def known(server: ForkedServer) -> dict[str, list[str]]:
    """What there is to be named, put there anew for each test."""
    preset = load_preset(DEMO)
    folder = server.models / "calibri" / "folder"
    folder.mkdir(parents=True, exist_ok=True)
    save_preset(folder / "a b.safetensors", preset, overwrite=True)
    (folder.parent / "broken.safetensors").write_bytes(b"nothing")
    return {
        "name": ["folder%2Fa%20b.safetensors", DEMO.name, "broken.safetensors", "none.safetensors"],
        "id": [RUN],
        "model": [TINY, "none"],
        "text": [write_preset_text(preset), "none"],
    }


@pytest.mark.oldest
def test_the_document_is_the_routes_and_is_committed(root: Path) -> None:
    table = web.RouteTableDef()
    presets.add(table)
    runs.add(table, None, None, lambda: None)  # type: ignore[arg-type]
    routes = {(route.method.lower(), route.path) for route in table}  # type: ignore[attr-defined]
    assert routes == {(each.method, each.path) for each in openapi.OPERATIONS}
    committed = json.loads((root / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert committed == openapi.document(), (
        "run python -m comfyui_calibri.nodes.openapi > docs/openapi.json"
    )


# What there is, before anything is deleted.
@pytest.mark.parametrize("named", sorted(OPERATIONS, key=lambda name: not name.startswith("GET")))
def test_answers_are_what_the_document_says(
    server: ForkedServer, known: dict[str, list[str]], named: str
) -> None:
    operation = OPERATIONS[named]

    @FEW
    @given(case=operation.as_strategy(), data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        # Half of what is named is there: else everything would be a 404.
        for values in (case.path_parameters, case.query, case.body):
            for key in known.keys() & (values.keys() if isinstance(values, dict) else set()):
                if data.draw(st.booleans()):
                    values[key] = data.draw(st.sampled_from(known[key]))
        for key in {"name", "id"} & case.path_parameters.keys():
            # ".." would be another address.
            case.path_parameters[key] = case.path_parameters[key].strip("./") or "x"
        answer = case.call(base_url=server.url)
        case.validate_response(answer, checks=CHECKS)

    ask()
