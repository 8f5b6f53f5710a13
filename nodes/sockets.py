"""The kinds of links that are Calibri's own, and what the schemas of several nodes have."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

Prompts = io.Custom("CALIBRI_PROMPTS")  # tuple[str, ...]
Reward = io.Custom("CALIBRI_REWARD")  # rewards.protocol.Reward
Preset = io.Custom("CALIBRI_PRESET")  # calibri.presets.Preset
QRM = io.Custom("CALIBRI_QRM")  # qrm.files.QRMFile
Router = io.Custom("CALIBRI_ROUTER")  # ahpa.router_file.TrainedRouter
Settings = io.Custom("CALIBRI_SETTINGS")  # calibri.settings.RunSettings


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


def percents(what: str) -> list[Any]:
    """From when to when in sampling the preset or QRM of a node acts; see `check_percents`."""

    def percent(name: str, default: float, does: str) -> Any:
        tooltip = f"Where in sampling the {what} {does}."
        return advanced(
            io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, tooltip=tooltip)
        )

    return [
        percent("start_percent", 0.0, "begins to act"),
        percent("end_percent", 1.0, "stops acting"),
    ]


def check_percents(start: float | None, end: float | None, what: str) -> str:
    """What is wrong with these percents, if anything; None is one that is linked, not yet known."""
    if start is None or end is None or start < end:
        return ""
    return (
        f"start_percent is {start:g} and end_percent {end:g}, so the {what} would never act; "
        "set start below end, or strength to 0."
    )


def search_aliases(*words: str) -> dict[str, Any]:
    """A schema's `search_aliases`: what else people look for a node by, beside its name.

    Empty where this ComfyUI's schemas have no such field, as those of 0.3.64.
    """
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return {"search_aliases": list(words)} if "search_aliases" in known else {}
