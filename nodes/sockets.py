"""The kinds of links that are Calibri's own."""

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
