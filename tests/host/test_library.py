"""The presets over HTTP in a real ComfyUI that lets other sites' pages in and has several users:
found, sent, renamed, deleted, restored, and nothing of it for whom it is not meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_calibri.calibri.editing import plain_preset
from comfyui_calibri.calibri.model_file import open_model_file
from comfyui_calibri.calibri.preset_metadata import Preset, RewardChange
from comfyui_calibri.calibri.preset_text import write_preset_text
from comfyui_calibri.calibri.presets import load_preset, save_preset
from comfyui_calibri.nodes.folders import DEMO_WEIGHTS

from .background_graph import TINY, write_tiny_model
from .forked_server import ForkedServer, ForkServer
from .library_client import JSON, Answer, Ask, ask, at, form, linked, names

pytestmark = pytest.mark.oldest

DEMO = "calibri-demo.safetensors"
PICTURE = b"\xff\xd8\xff\xe0 not much of a picture"


@pytest.fixture(scope="module")
def server(
    fork_server: ForkServer, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    """A ComfyUI that was told to trust everybody."""
    options = ("--enable-cors-header", "--multi-user")
    running = ForkedServer(
        fork_server, comfyui, tmp_path_factory.mktemp("library"), options=options
    )
    write_tiny_model(running.models)
    with running:
        yield running


@pytest.fixture
def call(server: ForkedServer) -> Ask:
    def call(method: str, path: str, body: object = None, **options: object) -> Answer:
        return ask(server.url, method, path, body, **options)  # type: ignore[arg-type]

    return call


@pytest.fixture(scope="module")
def preset(server: ForkedServer) -> Preset:
    """A preset for the tiny model, with a gain and a picture."""
    with open_model_file(server.models / "diffusion_models" / TINY, "sd3") as file:
        plain = plain_preset(file.backbone, "gate", TINY)
    gain = RewardChange("ImageReward", 0.1, 0.4, 0.2, 0.4, 64, searched=True)
    return replace(plain, title="Night", rewards=(gain,), licence="CC0", thumbnail=PICTURE)


@pytest.fixture
def put(server: ForkedServer, preset: Preset) -> Iterator[Callable[..., Path]]:
    """Saves the preset under a name, by hand as it were; afterwards there are none."""
    folder = server.models / "calibri"

    def put(name: str, **changes: object) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_preset(path, replace(preset, **changes))  # type: ignore[arg-type]
        return path

    yield put
    for file in folder.rglob("*.safetensors"):
        file.unlink()


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


def test_all_users_share_the_presets_and_the_trash(call: Ask, put: Callable[..., Path]) -> None:
    put("night.safetensors")
    a, b = (call("GET", "/calibri/presets", headers={"comfy-user": user}).json for user in "ab")
    assert a == b
    gone = call("DELETE", at("night.safetensors"), {}, headers={**JSON, "comfy-user": "a"}).json
    restored = call(
        "POST", f"/calibri/trash/{gone['id']}/restore", {}, headers={**JSON, "comfy-user": "b"}
    )
    assert restored.json["name"] == "night.safetensors"
