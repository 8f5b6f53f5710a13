"""The kinds of links that are Calibri's own, and inputs that several nodes have."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

Prompts = io.Custom("CALIBRI_PROMPTS")  # tuple[str, ...]
Reward = io.Custom("CALIBRI_REWARD")  # rewards.protocol.Reward
Preset = io.Custom("CALIBRI_PRESET")  # calibri.presets.Preset


def advanced(widget: Any) -> Any:
    """Fold `widget` away under the node's advanced inputs, where this ComfyUI knows them."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def filename_prefix(default: str) -> Any:
    """The input of a node that saves a file under the next free number; `folders` checks it."""
    return io.String.Input(
        "filename_prefix",
        default=default,
        tooltip="The file's name before its number; 'folder/name' makes a folder.",
    )
