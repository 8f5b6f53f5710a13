"""The presets over HTTP in a real ComfyUI that lets other sites' pages in and has several users:
found, sent, renamed, deleted, restored, and nothing of it for whom it is not meant."""

# Fixtures are imported, and parameters called as they are.
# ruff: noqa: F811

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfyui_calibri.calibri.preset_metadata import Preset
from comfyui_calibri.calibri.preset_text import write_preset_text
from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.nodes.folders import DEMO_WEIGHTS

from .background_graph import TINY
from .forked_server import ForkedServer
from .library_client import JSON, Ask, at, form, linked, names
from .library_fixtures import (  # the fixtures for every test here
    DEMO,
    PICTURE,
    call,  # noqa: F401
    preset,  # noqa: F401
    put,  # noqa: F401
    server,  # noqa: F401
)

pytestmark = pytest.mark.oldest


def test_the_list_tells_what_a_card_shows(call: Ask, put: Callable[..., Path]) -> None:
    put("night.safetensors")
    put("folder/day.safetensors", title="Day", thumbnail=b"", rewards=())
    (broken := put("broken.safetensors")).write_bytes(b"nothing")
    listing = call("GET", f"/calibri/presets?model={TINY}").json
    day, night = (
        next(each for each in listing["presets"] if each["title"] == title)
        for title in ("Day", "Night")
    )
    assert night["name"] == "night.safetensors"
    assert (night["family"], night["granularity"]) == ("sd3", "gate")
    assert night["rewards"][0]["after"] == 0.4
    assert (night["thumbnail"], night["yours"], night["licence"]) == (True, True, "CC0")
    assert day["name"] == os.path.join("folder", "day.safetensors")
    assert day["digest"] == night["digest"]
    # The demo's is another family, and the pack's.
    demo = next(each for each in listing["presets"] if each["name"] == DEMO)
    assert (night["fits"], demo["fits"], demo["yours"]) == (True, False, False)
    (wrong,) = listing["broken"]
    assert (wrong["name"], broken.name in wrong["error"]) == (broken.name, True)
    assert call("GET", "/calibri/presets").json["presets"][0]["fits"] is None
    asked = call("GET", "/calibri/presets?model=..%2Fmain.py").json
    assert ("no model file" in asked["model_error"], len(asked["presets"])) == (True, 3)


def test_one_preset_whole_as_file_as_text_and_its_picture(
    call: Ask, put: Callable[..., Path], preset: Preset
) -> None:
    path = put("folder/größer & mehr.safetensors")
    name = os.path.join("folder", "größer & mehr.safetensors")
    found = call("GET", at(name)).json
    assert dict(zip(found["names"], found["values"][0], strict=True)) == dict(
        preset.members[0].coefficients
    )
    assert found["weights"] == [1.0]
    assert call("GET", at("folder/größer & mehr.safetensors")).json == found
    file = call("GET", at(name, "/file"))
    assert (file.status, file.body) == (200, path.read_bytes())
    assert "attachment" in file.headers["Content-Disposition"]
    assert call("GET", at(name, "/text")).json == {"text": write_preset_text(preset)}
    picture = call("GET", at(name, "/thumbnail"))
    assert (picture.body, picture.headers["Content-Type"]) == (PICTURE, "image/jpeg")
    assert picture.headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_that_is_sent_is_checked_and_overwrites_nothing(
    call: Ask, put: Callable[..., Path], server: ForkedServer, preset: Preset
) -> None:
    data = put("night.safetensors").read_bytes()
    there = put("day.safetensors", title="Day")
    body, headers = form("day.safetensors", data)
    again = call("POST", "/calibri/presets", body, headers=headers)
    assert (again.status, again.json["is_new"]) == (200, False)
    assert again.json["preset"]["name"] == "night.safetensors"
    (server.models / "calibri" / "night.safetensors").unlink()
    sent = call("POST", "/calibri/presets", body, headers=headers)
    assert (sent.status, sent.json["preset"]["name"]) == (201, "day-2.safetensors")
    assert load_preset(there).title == "Day"
    assert load_preset(there.with_name("day-2.safetensors")) == preset
    before = names(call)
    for name, content, field, status in (
        ("a.safetensors", b"nothing", "file", 422),
        ("a.ckpt", data, "file", 422),
        ("con.safetensors", data, "file", 422),
        ("...safetensors", data, "file", 422),
        ("a.safetensors", data, "other", 400),
        ("a.safetensors", bytes(17 * 2**20), "file", 413),
    ):
        body, headers = form(name, content, field)
        refused = call("POST", "/calibri/presets", body, headers=headers)
        assert (refused.status, bool(refused.sentence)) == (status, True), name
    assert call("POST", "/calibri/presets", data).status == 415
    assert names(call) == before
    # A path is no way out: what counts is its last part.
    body, headers = form("../../escaped.safetensors", put("x.safetensors", title="X").read_bytes())
    (server.models / "calibri" / "x.safetensors").unlink()
    sent = call("POST", "/calibri/presets", body, headers=headers)
    assert sent.json["preset"]["name"] == "escaped.safetensors"
    assert not list(server.folder.rglob("base/escaped*"))


def test_a_text_that_is_sent_becomes_a_file(call: Ask, put: Callable[..., Path]) -> None:
    put("night.safetensors")
    text = call("GET", at("night.safetensors", "/text")).json["text"]
    made = call("POST", "/calibri/presets/text", {"text": text})
    assert (made.status, made.json["preset"]["name"]) == (201, "Night.safetensors")
    assert made.json["preset"]["rewards"]
    other = text.replace('"Night"', '"a/b: c"')
    titled = call("POST", "/calibri/presets/text", {"text": other}).json["preset"]
    assert titled["name"] == "a-b-c.safetensors"
    named = {"text": text.replace('"Night"', '"x"'), "name": "sub/mine"}
    sub = call("POST", "/calibri/presets/text", named).json["preset"]["name"]
    assert sub == os.path.join("sub", "mine.safetensors")
    for body, status in (
        ({"text": "hello"}, 422),
        ({"text": text, "name": "../x"}, 422),
        ({"text": 1}, 422),
        ({"text": text, "more": 1}, 422),
        ([], 400),
        (b"{", 400),
    ):
        refused = call("POST", "/calibri/presets/text", body)
        assert (refused.status, bool(refused.sentence)) == (status, True), body


def test_it_is_renamed_but_never_onto_another(call: Ask, put: Callable[..., Path]) -> None:
    put("one.safetensors", title="One")
    put("two.safetensors")
    renamed = call("POST", at("one.safetensors", "/rename"), {"to": "sub/three"})
    assert renamed.json["name"] == os.path.join("sub", "three.safetensors")
    name = renamed.json["name"]
    for to, status in (("two", 409), ("../two", 422), ("C:\\x", 422), ("nul", 422), ("", 422)):
        refused = call("POST", at(name, "/rename"), {"to": to})
        assert (refused.status, bool(refused.sentence)) == (status, True), to
    assert call("POST", at(name, "/rename"), {"to": name}).status == 200
    assert call("POST", at(DEMO, "/rename"), {"to": "mine"}).status == 409
    assert (DEMO_WEIGHTS / "calibri" / DEMO).is_file()
    assert names(call) == sorted([DEMO, name, "two.safetensors"])


def test_what_is_deleted_can_be_restored(
    call: Ask, put: Callable[..., Path], server: ForkedServer, preset: Preset
) -> None:
    path = put("sub/one.safetensors")
    name = os.path.join("sub", "one.safetensors")
    gone = call("DELETE", at(name), {}).json
    assert (path.exists(), names(call)) == (False, [DEMO])
    assert Path(gone["folder"]).is_relative_to(server.folder / "user" / "calibri" / "trash")
    listed = call("GET", "/calibri/trash").json["discarded"]
    assert listed[0] == {**gone, "name": "sub/one.safetensors"}
    put("sub/one.safetensors", title="Another")
    odd = put("my preset (1).safetensors").name
    trashed = call("DELETE", at(odd), {}).json["id"]
    assert call("POST", f"/calibri/trash/{trashed}/restore", {}).json["name"] == odd
    back = call("POST", f"/calibri/trash/{gone['id']}/restore", {})
    assert back.json["name"] == os.path.join("sub", "one-2.safetensors")
    assert load_preset(path.with_name("one-2.safetensors")) == preset
    assert call("POST", f"/calibri/trash/{gone['id']}/restore", {}).status == 404
    assert call("POST", "/calibri/trash/..%2F..%2Fuser/restore", {}).status == 404
    assert call("DELETE", at(DEMO), {}).status == 409


@pytest.fixture
def outside(put: Callable[..., Path], server: ForkedServer) -> Iterator[Path]:
    """A preset elsewhere, with links to it and to its folder among the presets."""
    inside = put("night.safetensors")
    with linked(inside, server.folder / "elsewhere") as secret:
        yield secret


def test_nothing_outside_the_folder_can_be_named(call: Ask, outside: Path) -> None:
    assert names(call) == sorted([DEMO, "night.safetensors"])
    for name in (
        *("../secret.safetensors", "..\\secret.safetensors", "/etc/passwd", "C:\\a.safetensors"),
        *("sub/../../secret.safetensors", "link.safetensors", "linked/secret.safetensors"),
        *("a.safetensors\0", "x" * 5000 + ".safetensors", "x/" * 300 + "a.safetensors"),
        *("night.safetensors/", "./night.safetensors", "night.safetensors:stream", "note.json"),
    ):
        for method, rest, body in (
            ("GET", "", None),
            ("GET", "/file", None),
            ("POST", "/rename", {"to": "x"}),
            ("DELETE", "", {}),
        ):
            refused = call(method, at(name, rest), body)
            assert (refused.status, bool(refused.sentence)) == (404, True), (method, name, rest)
    assert outside.is_file()
    assert names(call) == sorted([DEMO, "night.safetensors"])


def test_all_users_share_the_presets_and_the_trash(call: Ask, put: Callable[..., Path]) -> None:
    put("night.safetensors")
    a, b = (call("GET", "/calibri/presets", headers={"comfy-user": user}).json for user in "ab")
    assert a == b
    gone = call("DELETE", at("night.safetensors"), {}, headers={**JSON, "comfy-user": "a"}).json
    restored = call(
        "POST", f"/calibri/trash/{gone['id']}/restore", {}, headers={**JSON, "comfy-user": "b"}
    )
    assert restored.json["name"] == "night.safetensors"
