"""ComfyUI's prompt queue as the background job sees it: the one file that knows its insides.

A queue item is (number, prompt id, prompt, extra data, outputs) and, in newer versions, a sixth
part for secrets. Smaller numbers run first.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Behind every prompt of a user: theirs count up from 0.
NUMBER = 10**12
# No page has this id, so that nobody sees progress he did not ask for.
CLIENT = "calibri-background"

Prompt = dict[str, Any]


class InvalidPromptError(ValueError):
    """ComfyUI does not take a prompt; the message says why."""


@dataclass(frozen=True)
class Look:
    """The queue at one moment, its prompts by their ids."""

    running: frozenset[str]
    pending: frozenset[str]
    taken: int
    """How many prompts have begun since ComfyUI started."""

    @property
    def all(self) -> frozenset[str]:
        return self.running | self.pending


@dataclass(frozen=True)
class Entry:
    """A prompt's history: its status ("success", "error") and the kinds of its messages."""

    prompt: Prompt
    status: str
    messages: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def interrupted(self) -> bool:
        return any(kind == "execution_interrupted" for kind, _ in self.messages)

    @property
    def error(self) -> str:
        """What the node that failed said, "" where none did."""
        told = (m.get("exception_message", "") for k, m in self.messages if k == "execution_error")
        return str(next(told, "")).strip()


def server() -> Any:
    """ComfyUI's server, None in a process without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


class ComfyQueue:
    """The queue of a running server. Every method may be called from any thread but `submit`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._queue = server.prompt_queue
        self._number = itertools.count(NUMBER)

    def look(self) -> Look:
        """What is in the queue."""
        with self._queue.mutex:
            running, pending = self._queue.get_current_queue_volatile()
            return Look(
                frozenset(item[1] for item in running),
                frozenset(item[1] for item in pending),
                self._queue.task_counter,
            )

    def waiting(self) -> bool:
        """Whether a prompt waits; none of ours ever does while another of ours runs."""
        return bool(self._queue.queue)

    async def submit(self, prompt: Prompt, target: str) -> str | None:
        """Queue `prompt` to execute `target` alone; its id, or None where others came first.

        Raises InvalidPromptError.
        """
        import execution

        prompt_id = str(uuid.uuid4())
        valid, error, outputs, reasons = await execution.validate_prompt(
            prompt_id, prompt, [target]
        )
        if not valid:
            raise InvalidPromptError(_words(error, reasons))
        extra = {"client_id": CLIENT, "create_time": int(time.time() * 1000)}
        item: tuple[Any, ...] = (next(self._number), prompt_id, prompt, extra, outputs)
        # Absent in v0.3.64, as the sixth part.
        if "process_item" in inspect.signature(self._queue.task_done).parameters:
            item = (*item, {})
        with self._queue.mutex:
            if self._queue.get_tasks_remaining():
                return None
            self._queue.put(item)
        return prompt_id

    def withdraw(self, prompt_id: str) -> bool:
        """Take a prompt that has not begun out of the queue; whether it was there."""
        return bool(self._queue.delete_queue_item(lambda item: item[1] == prompt_id))

    def entry(self, prompt_id: str) -> Entry | None:
        """A prompt's history, None before it has ended or where it was deleted."""
        with self._queue.mutex:
            found = self._queue.history.get(prompt_id)
        return None if found is None else _entry(found)

    def forget(self, prompt_ids: Iterable[str]) -> None:
        """Take prompts out of the history, and have pages read it again."""
        for prompt_id in prompt_ids:
            self._queue.delete_history_item(prompt_id)
        self._server.queue_updated()

    def newest(self, but: frozenset[str]) -> Entry | None:
        """The prompt that ended last, without those of `but`."""
        with self._queue.mutex:
            for prompt_id in reversed(self._queue.history):
                if prompt_id not in but:
                    return _entry(self._queue.history[prompt_id])
        return None


def _entry(found: dict[str, Any]) -> Entry:
    status = found.get("status") or {}
    messages = tuple((kind, data) for kind, data in status.get("messages", ()))
    return Entry(found["prompt"][2], status.get("status_str", ""), messages)


def _words(error: dict[str, Any], reasons: dict[str, Any]) -> str:
    told = [
        f"{node['class_type']}: {reason['message']}: {reason['details']}"
        for node in reasons.values()
        for reason in node["errors"]
    ]
    return "; ".join(told) or f"{error['message']}: {error['details']}"
