"""A scorer on another machine: the server of docs/rewards.md, and servers that do it wrong."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_calibri.rewards import http_scorer
from comfyui_calibri.rewards.declarations import ServerDeclaration
from comfyui_calibri.rewards.external_reward import external_reward
from comfyui_calibri.rewards.protocol import Reward, RewardUnavailableError

from .http_servers import GOOD, GREYS, JSON, PROMPTS, Answering, quiet, reward_at


@pytest.fixture
def serve() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], int]]:
    """Starts a server with a handler on a free port of this machine."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_scorer, "FIRST_PAUSE", 0.02)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def answering(serve: Callable[..., int]) -> Callable[..., tuple[int, type[Answering]]]:
    def start(*answers: tuple[int, dict[str, str], bytes]) -> tuple[int, type[Answering]]:
        lists = {"answers": list(answers), "bodies": [], "seen": []}
        handler = type("Handler", (Answering,), lists)
        return serve(handler), handler

    return start


@pytest.fixture(scope="module")
def description(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "docs" / "reward-server.openapi.json").read_text())
    return found


def check(description: dict[str, Any], name: str, value: Any) -> None:
    """Hold a message against the OpenAPI description."""
    schema = {**description, "$ref": f"#/components/schemas/{name}"}
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.fixture(scope="module")
def documented(root: Path) -> dict[str, Any]:
    """The server of docs/rewards.md, as a module's names."""
    text = (root / "docs" / "rewards.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# reward_server\.py\n.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "reward_server"}
    exec(code, names)
    return names


@pytest.mark.parametrize("form", ["png", "raw"])
def test_the_documented_server_scores_as_its_scorer_does(
    serve: Callable[..., int], documented: dict[str, Any], form: str
) -> None:
    quiet_handler = type("Handler", (documented["Handler"],), {"log_message": quiet})
    reward = reward_at(serve(quiet_handler), format=form, batch=2)
    assert isinstance(reward, Reward)
    assert (reward.name, reward.differentiable) == ("Far", False)
    images = torch.rand(5, 8, 12, 3)
    expected = [
        documented["score"]((image.numpy() * 255).round().astype(np.uint8), "") for image in images
    ]
    torch.testing.assert_close(reward.score(images, list("abcde")), torch.tensor(expected))


@pytest.mark.parametrize("form", ["png", "raw"])
def test_messages_are_as_described(
    answering: Any, description: dict[str, Any], documented: dict[str, Any], form: str
) -> None:
    port, handler = answering(GOOD)
    scores = reward_at(port, format=form).score(GREYS, PROMPTS)
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.25, 1.0]))
    (body,) = handler.bodies
    check(description, "Batch", body)
    check(description, "Scores", json.loads(GOOD[2]))
    assert body["prompts"] == PROMPTS
    sent = np.stack(documented["pictures"](body))
    assert np.array_equal(sent, (GREYS * 255).round().byte().numpy())
    with pytest.raises(jsonschema.ValidationError):
        check(description, "Batch", {**body, "png": ["AA=="], "raw": {"shape": [1], "data": ""}})


def test_pngs_are_what_any_library_reads() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    sent = http_scorer.message(pixels, ["a", "b"], "png")["png"]
    read = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in sent]
    assert np.array_equal(np.stack(read), pixels)


def test_a_failure_that_passes_is_tried_again(answering: Any) -> None:
    port, handler = answering((503, {}, b""), (429, JSON, b'{"error": "busy"}'), GOOD)
    assert len(reward_at(port).score(GREYS, PROMPTS)) == 3
    assert len(handler.bodies) == 3


def test_a_failure_that_stays_makes_the_reward_unavailable(answering: Any) -> None:
    port, handler = answering((503, JSON, b'{"error": "loading weights"}'))
    said = rf"Far: 127\.0\.0\.1:{port} answered 503, loading weights\. .* goes on where it stopped"
    with pytest.raises(RewardUnavailableError, match=said):
        reward_at(port).score(GREYS, PROMPTS)
    assert len(handler.bodies) == 3  # once, and two retries


def test_a_server_that_is_gone_makes_the_reward_unavailable(serve: Callable[..., int]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    port = server.server_address[1]
    server.server_close()
    said = rf"Far: 127\.0\.0\.1:{port} cannot be reached \(.*refused\)"
    with pytest.raises(RewardUnavailableError, match=said):
        reward_at(port).score(GREYS, PROMPTS)


def test_a_server_that_hangs_is_given_up(serve: Callable[..., int]) -> None:
    tries = []

    class Hanging(Answering):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            tries.append(1)
            for _ in range(20):  # a byte now and then keeps a socket's own time limit from ending
                self.wfile.write(b" ")
                time.sleep(0.1)

    started = time.monotonic()
    reward = reward_at(serve(Hanging), timeout=0.4, retries=4)
    with pytest.raises(RewardUnavailableError, match=r"did not answer within 0\.4 s"):
        reward.score(GREYS, PROMPTS)
    assert time.monotonic() - started < 2.0
    assert len(tries) == 1


def test_all_tries_together_have_the_time_of_one(answering: Any) -> None:
    http_scorer.FIRST_PAUSE = 0.3  # the fixture puts it back
    port, handler = answering((503, {}, b""))
    started = time.monotonic()
    with pytest.raises(RewardUnavailableError, match=r"answered 503|did not answer within 2 s"):
        reward_at(port, timeout=2, retries=20).score(GREYS, PROMPTS)
    assert time.monotonic() - started < 5.0
    assert 1 < len(handler.bodies) < 12


def test_cancel_ends_the_wait(answering: Any) -> None:
    def cancel(*_: object) -> None:
        raise KeyboardInterrupt

    port, _ = answering((503, {}, b""))
    declared = {"kind": "http", "licence": "", "url": f"http://127.0.0.1:{port}/", "timeout": 5}
    reward = external_reward("Far", ServerDeclaration.model_validate(declared), Path(), cancel)
    http_scorer.FIRST_PAUSE = 10.0  # the fixture puts it back
    with pytest.raises(KeyboardInterrupt):
        reward.score(GREYS, PROMPTS)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(answering: Any, status: int) -> None:
    elsewhere, other = answering(GOOD)
    port, handler = answering((status, {"Location": f"http://127.0.0.1:{elsewhere}/x"}, b""))
    with pytest.raises(RewardUnavailableError, match=f"redirects to 'http://.*{elsewhere}/x'"):
        reward_at(port).score(GREYS, PROMPTS)
    assert (len(handler.bodies), len(other.bodies)) == (1, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_batch_is_the_servers_own_sentence(answering: Any, status: int) -> None:
    port, handler = answering((status, JSON, b'{"error": "prompt 1 has no verb"}'))
    with pytest.raises(ValueError, match=r"Far: .* refused the images: .*has no verb"):
        reward_at(port).score(GREYS, PROMPTS)
    assert len(handler.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b"<html>"), "answered 404"),
        ((401, JSON, b'{"error": ["not", "a sentence"]}'), "answered 401"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), "but text/html"),
        ((200, JSON, b"<html>"), "but b'<html>'"),
        ((200, JSON, b"[1, 2, 3]"), r"but b'\[1, 2, 3\]'"),
        ((200, JSON, b'{"scores": "abc"}'), "but b"),
        ((200, JSON, b'{"scores": [true, 1, 2]}'), "but b"),
        ((200, JSON, b'{"scores": ["1", 1, 2]}'), "but b"),
        ((200, JSON, b'{"scores": 3}'), "but b"),
        ((200, JSON, b"[" * 100_000), "but b"),
        ((200, JSON, b'{"scores": [1' + b"0" * 400 + b"]}"), "but b"),
        ((200, JSON, b" " * 3 * 2**20), "more than 1 MiB"),
        ((200, {**JSON, "Content-Length": "999"}, b'{"scores": [1'), "but b"),
        ((200, {**JSON, "Content-Length": "many"}, b"{}"), "but b"),
    ],
)
def test_an_answer_that_is_no_scores_is_said(
    answering: Any, answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    port, _ = answering(answer)
    with pytest.raises(RewardUnavailableError, match=f"Far: .*{said}"):
        reward_at(port, timeout=2).score(GREYS, PROMPTS)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (b"[1, 2]", r"Far answered \(2,\) for 3 images"),
        (b"[1, NaN, 2]", "Far gave 1 of 3 images.*own code"),
    ],
)
def test_scores_are_checked(answering: Any, scores: bytes, said: str) -> None:
    port, _ = answering((200, JSON, b'{"scores": ' + scores + b"}"))
    with pytest.raises(ValueError, match=said):
        reward_at(port).score(GREYS, PROMPTS)


def test_the_token_goes_to_the_declared_host(
    answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, handler = answering(GOOD)
    reward = reward_at(port, token_variable="FAR_TOKEN")
    with pytest.raises(RewardUnavailableError, match="set the environment variable FAR_TOKEN"):
        reward.score(GREYS, PROMPTS)
    monkeypatch.setenv("FAR_TOKEN", "secret")
    reward.score(GREYS, PROMPTS)
    assert handler.seen[0]["Authorization"] == "Bearer secret"
    reward_at(port).score(GREYS, PROMPTS)
    assert "Authorization" not in handler.seen[1]


def test_a_token_is_never_shown(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, handler = answering(GOOD)
    reward = reward_at(port, token_variable="FAR_TOKEN")
    for token in ("hunter2\x0b\r\nX: y", "hunter2 ✓"):
        monkeypatch.setenv("FAR_TOKEN", token)
        with pytest.raises(RewardUnavailableError, match="the token in FAR_TOKEN") as raised:
            reward.score(GREYS, PROMPTS)
        assert "hunter2" not in str(raised.value)
    assert not handler.seen
    monkeypatch.setenv("FAR_TOKEN", "hunter2\r\n")
    reward.score(GREYS, PROMPTS)
    assert handler.seen[0]["Authorization"] == "Bearer hunter2"


def test_empty_prompts_are_refused_where_they_count(answering: Any) -> None:
    port, handler = answering(GOOD)
    with pytest.raises(ValueError, match="Far compares an image with its prompt"):
        reward_at(port).score(GREYS, ["a", "", "c"])
    assert not handler.bodies
    reward_at(port, needs_prompt=False).score(GREYS, ["", "", ""])
