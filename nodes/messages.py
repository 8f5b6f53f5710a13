"""Words for the person at the browser and at the terminal."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest._io import HiddenHolder


def show_on_node(hidden: HiddenHolder | None, text: str) -> None:
    """Print `text` and show it under the node whose hidden inputs these are."""
    logging.info("Calibri: %s", text)
    # Nodes also run without a server, in tests and scripts, and must not load one.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and hidden is not None:
        server.send_progress_text(text, hidden.unique_id, server.client_id)
