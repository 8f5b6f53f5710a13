"""A scorer behind an address: JSON there, JSON back (docs/reward-server.openapi.json).

Python's own urllib, because not every supported ComfyUI brings an HTTP client for threads. It goes
to the declared address only: a redirect is an error, and nothing but JSON is read.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from .declarations import ServerDeclaration
from .protocol import RewardUnavailableError
from .waiting import Report, Waiting

MOST_ANSWER = 2**20  # bytes; a thousand scores are 20 kB
MOST_WORDS = 300  # characters of a server's own sentence
PASSING = (408, 425, 429, 500, 502, 503, 504)  # what may be better in a moment
REFUSED = (400, 413, 415, 422)  # this batch, by a server that is well
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries, doubled each time


class HttpScorer:
    """Asks the declared server for the reward `name`."""

    def __init__(self, name: str, declaration: ServerDeclaration, report: Report) -> None:
        self._name, self._declaration, self._report = name, declaration, report
        parts = urlsplit(declaration.url)
        self._host = parts.netloc

    def __call__(self, pixels: np.ndarray, prompts: Sequence[str]) -> list[float]:
        """The scores of uint8 pixels [B, H, W, 3].

        ValueError where the server refuses the batch; RewardUnavailableError where it cannot be
        reached, or does not answer as it should.
        """
        body = json.dumps(message(pixels, prompts, self._declaration.format)).encode()
        problem = ""
        # One limit for all tries: after the first that hangs there is no other.
        until = time.monotonic() + self._declaration.timeout
        for attempt in range(1 + self._declaration.retries):
            if attempt:
                self._pause(attempt, until)
            seconds = until - time.monotonic()
            if seconds <= 0:
                break
            answer = self._post(body, seconds)
            if answer.status == 200:
                return self._scores(answer)
            if answer.status in REFUSED:
                raise ValueError(f"{self._name}: {self._host} refused the images: {answer.words()}")
            problem = answer.words()
            if answer.status not in (0, *PASSING):
                break
        raise RewardUnavailableError(
            f"{self._name}: {self._host} {problem}. See that it runs and that its declaration is "
            "right, then queue this again; a calibration goes on where it stopped."
        )

    def _post(self, body: bytes, seconds: float) -> _Answer:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        token = self._declaration.token
        if token == "":
            raise RewardUnavailableError(
                f"{self._name} needs a token for {self._host}: set the environment variable "
                f"{self._declaration.token_variable} and restart ComfyUI."
            )
        if token is not None:
            if not (token.isascii() and token.isprintable()):
                # http.client would refuse it in a sentence that shows it.
                raise RewardUnavailableError(
                    f"{self._name}: the token in {self._declaration.token_variable} holds "
                    "characters that no header can; set the variable anew and restart ComfyUI."
                )
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self._declaration.url, body, headers, method="POST")
        words = f"{self._name}: waiting for {self._host}"
        try:
            # Its own time limit is for each packet; the one around it for the whole answer.
            waiting = Waiting(lambda: _ask(request, seconds))
            return waiting.result(seconds, self._report, words)
        except TimeoutError:
            return _Answer(0, f"did not answer within {self._declaration.timeout:g} s".encode())

    def _pause(self, attempt: int, until: float) -> None:
        """Twice as long each time; half of it random, so that many askers do not come at once."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        pause = min(pause, max(0.0, until - time.monotonic()))
        words = f"{self._name}: {self._host} again in a moment"
        with contextlib.suppress(TimeoutError):
            Waiting(lambda: time.sleep(pause + 1.0)).result(pause, self._report, words)

    def _scores(self, answer: _Answer) -> list[float]:
        body = answer.body
        got = f"{body[:80]!r}"
        try:
            if len(body) > MOST_ANSWER:
                got = f"more than {MOST_ANSWER // 2**20} MiB"
                raise ValueError
            if answer.kind != "application/json":
                got = answer.kind
                raise ValueError
            scores = json.loads(body)["scores"]
            if not all(type(score) in (int, float) for score in scores):
                raise TypeError
            return [float(score) for score in scores]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise RewardUnavailableError(
                f'{self._name}: {self._host} did not answer JSON {{"scores": [numbers]}} but '
                f"{got}; see that the address is a reward server's."
            ) from None


def message(pixels: np.ndarray, prompts: Sequence[str], form: str) -> dict[str, Any]:
    """The body of a request, before it is JSON."""
    if form == "raw":
        images: Any = {"shape": pixels.shape, "data": _text(pixels.tobytes())}
        return {"prompts": list(prompts), "raw": images}
    return {"prompts": list(prompts), "png": [_text(_png(picture)) for picture in pixels]}


@dataclass(frozen=True)
class _Answer:
    """`status` 0: nothing came, and `body` says why."""

    status: int
    body: bytes
    kind: str = ""
    target: str = ""

    def words(self) -> str:
        """What is wrong, after the server's name."""
        if self.status == 0:
            return self.body.decode()
        if 300 <= self.status < 400:
            return f"redirects to {self.target[:MOST_WORDS]!r}, which is not followed: declare it"
        try:
            said = str(json.loads(self.body)["error"])[:MOST_WORDS]
        except (ValueError, TypeError, KeyError, RecursionError):
            said = ""
        return f"answered {self.status}" + (f", {said}" if said else "")


def _ask(request: urllib.request.Request, seconds: float) -> _Answer:
    """The answer; TimeoutError after `seconds`, also where it never ends. Nobody waits for this any
    more then, but the connection and its thread must end too.
    """
    until = time.monotonic() + seconds
    try:
        try:
            answer = _opener().open(request, timeout=seconds)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            kind, target = answer.headers.get_content_type(), answer.headers.get("Location", "")
            return _Answer(answer.status, _body(answer, until), kind, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            raise TimeoutError from None
        return _Answer(0, f"cannot be reached ({getattr(error, 'reason', error)})".encode())


def _body(answer: http.client.HTTPResponse | urllib.error.HTTPError, until: float) -> bytes:
    """Up to a byte more than MOST_ANSWER, piece by piece as it comes."""
    body = b""
    while len(body) <= MOST_ANSWER and (piece := answer.read1(MOST_ANSWER + 1 - len(body))):
        body += piece
        if time.monotonic() > until:
            raise TimeoutError
    return body


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and nothing else: without its handler, urllib follows no redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    # The fastest level: three times as fast as the default, a tenth larger.
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
