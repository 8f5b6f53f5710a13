"""How nodes save files: under a name that was free, and saying where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from . import folders
from .messages import show_on_node

if TYPE_CHECKING:
    from comfy_api.latest._io import HiddenHolder


def save(hidden: HiddenHolder | None, path: Path, write: Callable[[Path], None]) -> io.NodeOutput:
    """Have `write` make the file, in a folder that may be new; the node shows its place."""
    folders.make_folder(path.parent)
    write(path)
    return said(hidden, f"Saved as {path}")


def said(hidden: HiddenHolder | None, text: str) -> io.NodeOutput:
    """An output node's answer in words."""
    show_on_node(hidden, text)
    return io.NodeOutput(ui=ui.PreviewText(text))
