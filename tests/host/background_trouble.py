"""Tell the nodes of a test's server (`background_nodes.py`) what to suffer from."""

from __future__ import annotations

import json
import os
from typing import Any

from comfy_server import ComfyServer


def set_trouble(server: ComfyServer, **trouble: Any) -> None:
    """From now on suffer from this alone, or from nothing."""
    file = server.folder / "input" / "trouble.json"
    new = file.with_suffix(".new")
    new.write_text(json.dumps(trouble))
    os.replace(new, file)
