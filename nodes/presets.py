"""Presets as files in models/calibri."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node
from .saving import said, save

if TYPE_CHECKING:
    from ..calibri.presets import Preset, RewardChange


class CalibriLoadPreset(io.ComfyNode):
    """Reads a preset file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadPreset",
            display_name="Load Calibri Preset",
            category="Calibri",
            **sockets.search_aliases("load coefficients", "open preset", "calibration file"),
            description="Loads a preset from models/calibri.",
            inputs=[
                io.Combo.Input(
                    "preset_name",
                    options=folders.preset_files(),
                    tooltip="A .safetensors file in models/calibri.",
                )
            ],
            outputs=[sockets.Preset.Output(display_name="preset")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, preset_name: str | None) -> bool | str:
        if preset_name is None:  # linked; read when it is known
            return True
        from ..calibri.presets import load_preset

        try:
            load_preset(folders.preset_path(preset_name))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, preset_name: str | None) -> float:
        if preset_name is None:  # linked; ComfyUI watches what it is linked to
            return 0.0
        return folders.preset_path(preset_name).stat().st_mtime

    @classmethod
    def execute(cls, preset_name: str) -> io.NodeOutput:
        from ..calibri.presets import load_preset

        preset = load_preset(folders.preset_path(preset_name))
        show_on_node(cls.hidden, words(preset))
        return io.NodeOutput(preset)


class CalibriSavePreset(io.ComfyNode):
    """Writes a preset file, never over another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSavePreset",
            display_name="Save Calibri Preset",
            category="Calibri/presets",
            **sockets.search_aliases("save coefficients", "write preset", "calibration file"),
            description="Saves a preset to models/calibri under the next free number.",
            inputs=[
                sockets.Preset.Input(
                    "preset", tooltip="From Calibrate or Import Calibri Checkpoint."
                ),
                sockets.filename_prefix("calibri"),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return folders.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, preset: Preset, filename_prefix: str) -> io.NodeOutput:
        from ..calibri.presets import changes_nothing, save_preset

        if changes_nothing(preset):
            text = "Not saved: this preset changes nothing, as where Calibrate has found nothing."
            return said(cls.hidden, text)
        while True:
            path = folders.new_preset_path(filename_prefix)
            try:
                return save(cls.hidden, path, lambda path: save_preset(path, preset))
            except FileExistsError:  # somebody has just taken the number
                continue


def words(preset: Preset) -> str:
    """What a preset's user should set, and what to expect."""
    from ..calibri.presets import describe_members

    origin = f"Made from {preset.origin}. " if preset.origin else ""
    members = f"{describe_members(preset)} " if preset.is_ensemble else ""
    found = ", ".join(f"{name} {value}" for name, value in preset.sampling.items() if value)
    gains = "".join(f" {_change(change)}" for change in preset.rewards)
    if preset.diversity is not None and preset.diversity.fell:
        gains += " Its pictures of one prompt are more alike than the plain model's."
    return f"{origin}{members}Found with {found or 'settings it does not name'}.{gains}"


def _change(change: RewardChange) -> str:
    """What a reward says of a preset; a gain within chance is none."""
    said = f"{change.name}: {change.before:.4g} plain, {change.after:.4g} calibrated"
    if change.searched:
        return f"{said}." if change.rose else f"{said}, which shows no gain."
    return f"{said}, which is a fall." if change.fell else f"{said}."
