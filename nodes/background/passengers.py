"""The nodes of the user's last prompt, which ride along with each slice so that ComfyUI keeps them.

ComfyUI forgets the results of nodes that a prompt does not contain. Passengers keep their ids:
the results of nodes that know their id, and the objects of all nodes of the old kind, are filed
under it, so renamed passengers would not keep them. They never run, since a slice is executed for
its own node alone, and nobody sees them, since a slice reports to no page.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .comfy_queue import ComfyQueue, Prompt

REMEMBERED = 64  # prompts, at most, that may still be in the queue
SPARE = 4  # prompts that ended just now, or that ComfyUI has refused


class Passengers:
    """Knows the user's last prompt. `heard` gets each prompt that is posted to ComfyUI."""

    def __init__(self, queue: ComfyQueue) -> None:
        self._queue = queue
        self._posted: deque[Prompt] = deque(maxlen=REMEMBERED)
        self._last: Prompt = {}

    def heard(self, posted: Any) -> None:
        """Remember a prompt as it was posted: ComfyUI will write into it."""
        if not isinstance(posted, dict):
            return
        self._posted.append(posted)
        # Others have been executed; prompts can hold whole pictures.
        while len(self._posted) > len(self._queue.look().all) + SPARE:
            self._posted.popleft()

    def look(self, ours: frozenset[str]) -> None:
        """Look for the prompt that ended last and is none of `ours`."""
        entry = self._queue.newest(ours)
        if entry is not None:
            self.board(self._as_executed(entry.prompt))

    def board(self, prompt: Prompt) -> None:
        """Make the nodes of `prompt` the passengers."""
        self._last = prompt

    def copies(self) -> Prompt:
        """The passengers for one slice."""
        return {number: dict(node) for number, node in self._last.items()}

    def _as_executed(self, prompt: Prompt) -> Prompt:
        """The posted prompt that history holds a copy of, with what ComfyUI has written into it.

        That is what `IS_CHANGED` said when the prompt ran: nodes are not asked again, which could
        take long, count something, or say otherwise and lose the result.
        """
        for posted in reversed(self._posted):
            if posted.keys() == prompt.keys() and all(
                _without_change(posted[number]) == _without_change(prompt[number])
                for number in prompt
            ):
                return posted
        return prompt


def _without_change(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "is_changed"}
