"""What stops scripts/demo and scripts/test: one sentence for the person at the terminal."""

from __future__ import annotations


class SetupError(RuntimeError):
    """Set-up cannot go on; the message says what was found, what is wrong and what to do."""
