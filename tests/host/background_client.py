"""Talk to a server's calibration runs as its page does, and queue prompts beside them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfy_client import ComfyClient

Summary = dict[str, Any]
SECONDS = 240  # that anything here may take on a busy machine


class RunsClient(ComfyClient):
    """A ComfyClient that knows /calibri/runs."""

    def call(self, method: str, path: str = "", body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that /calibri/runs`path` answers; Refused for anything but success."""
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"{self.url}/calibri/runs{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()) from None

    def summaries(self) -> list[Summary]:
        """All runs."""
        found: list[Summary] = self.call("GET")["runs"]
        return found

    def summary(self, run: str) -> Summary:
        """One run, with its course; Refused with 404 before its node has been executed."""
        found: Summary = self.call("GET", f"/{run}")
        return found

    def picture(self, run: str) -> bytes:
        """A run's pictures before and after, as the page gets them."""
        with urllib.request.urlopen(f"{self.url}/calibri/runs/{run}/picture", timeout=60) as answer:
            data: bytes = answer.read()
        return data

    def act(self, run: str, action: str) -> Any:
        """pause, resume, stop, finish, save, follow or unfollow."""
        return self.call("POST", f"/{run}/{action}")

    def until(
        self, run: str, holds: Callable[[Summary], object], seconds: float = SECONDS
    ) -> Summary:
        """The first summary for which `holds`; AssertionError with the last one after `seconds`."""
        now: Summary = {}
        for _ in _ticks(seconds):
            # The list, which is cheap to ask for over and over.
            now = next((listed for listed in self.summaries() if listed["id"] == run), now)
            if now and holds(now):
                return now
        raise AssertionError(f"After {seconds:.0f} s the run is {now}")

    def finished(self, run: str, seconds: float = 2 * SECONDS) -> Summary:
        """The summary once the run is finished; AssertionError if it rests instead."""
        ends = ("finished", "paused", "stopped")
        ended = self.until(run, lambda now: now["state"] in ends, seconds)
        assert ended["state"] == "finished", ended
        return ended

    def queue_length(self) -> int:
        """Prompts that run or wait: what the page's "Run (Instant)" waits for to be 0."""
        length: int = self.get_json("/prompt")["exec_info"]["queue_remaining"]
        return length

    def until_done(self, prompt_id: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The history entry of a queued prompt; AssertionError if there is none in time."""
        for _ in _ticks(seconds):
            history: dict[str, Any] = self.get_json(f"/history/{prompt_id}")
            if prompt_id in history:
                entry: dict[str, Any] = history[prompt_id]
                return entry
        raise AssertionError(f"The prompt {prompt_id} is not done after {seconds:.0f} s.")

    def clear_queue(self) -> None:
        """As the page's button does: waiting prompts go, the running one stays."""
        self._post("/queue", {"clear": True})


class Refused(Exception):
    """A route's answer that is no success."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.sentence: str | None = None
        try:
            self.sentence = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return  # no answer of ours


def cached_nodes(entry: Mapping[str, Any]) -> set[str]:
    """Which nodes a history entry's prompt took from ComfyUI's cache."""
    (cached,) = (data for kind, data in entry["status"]["messages"] if kind == "execution_cached")
    return set(cached["nodes"])


def started(entry: Mapping[str, Any]) -> float:
    """When a history entry's prompt began, in seconds since 1970."""
    (began,) = (data for kind, data in entry["status"]["messages"] if kind == "execution_start")
    return float(began["timestamp"]) / 1000


def _ticks(seconds: float, every: float = 0.03) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(every)
