"""A prompt that the timer has submitted: a slice, or the rebuilding of a run's inputs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .comfy_queue import Look
from .run import Run


@dataclass
class Flight:
    """One prompt of ours, from its submission until it is over. `target` is its own node."""

    run: Run
    target: str
    rebuilds: bool = False
    prompt_id: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)
    """What a rebuilding has executed."""
    counted: bool = False
    """Whether the timer has counted it among the prompts that have begun."""
    worked: bool = False
    """Whether its node has done what it was there for; set by the node, as the next two."""
    interrupted: bool = False
    error: str = ""
    unwanted: bool = False
    """Whether it is to end as if a prompt waited."""
    _waiting_since: float | None = None

    def began(self, look: Look) -> bool:
        """Whether ComfyUI has taken it out of the queue to run it."""
        return self.prompt_id != "" and self.prompt_id not in look.pending

    def note_waiting(self, look: Look) -> None:
        """Note when the first prompt began to wait for it."""
        if self._waiting_since is None and look.pending:
            self._waiting_since = time.monotonic()

    def waited(self) -> float:
        """Seconds that the first prompt has waited."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since
