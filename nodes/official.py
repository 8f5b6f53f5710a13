"""Checkpoints of Calibri's official code: read as presets, and written from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node
from .saving import save

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..calibri.official_file import OfficialCheckpoint
    from ..calibri.presets import Preset

NO_FILE = "none"
# The widget's words -> official_preset.MEMBERS.
MEMBERS = {
    "auto": "auto",
    "ensemble": "ensemble",
    "conditional and unconditional (CFG)": "cfg",
}


class CalibriImportCheckpoint(io.ComfyNode):
    """Reads a cmaes_step_NNNN.json as a preset for a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriImportCheckpoint",
            display_name="Import Calibri Checkpoint",
            category="Calibri/presets",
            **sockets.search_aliases("official checkpoint", "load json", "cmaes_step"),
            description="Reads a checkpoint of Calibri's official code (cmaes_step_NNNN.json) as a "
            "preset for this model.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model the checkpoint was found on; its blocks must match."
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=[NO_FILE, *folders.checkpoint_files()],
                    tooltip="A .json file in models/calibri or in ComfyUI's input folder.",
                ),
                io.Combo.Input(
                    "members",
                    options=list(MEMBERS),
                    tooltip="What a checkpoint of two members is; the file does not say. auto: CFG "
                    "for SD3 and Qwen-Image, an ensemble for FLUX.1, as the official code runs "
                    "them.",
                ),
                sockets.advanced(
                    io.Float.Input(
                        "cfg",
                        default=0.0,
                        min=0.0,
                        max=100.0,
                        step=0.1,
                        tooltip="For members of CFG: the scale the search began at, which is the "
                        "preset's at strength 0. At 0 the nearest to the members' weights.",
                    )
                ),
                io.String.Input(
                    "title", default="", tooltip="The preset's; the file's name if empty."
                ),
                io.String.Input(
                    "base_model",
                    default="",
                    tooltip="The model's name for the preset's users, like FLUX.1-dev.",
                ),
                io.String.Input(
                    "licence", default="", tooltip="Under which the checkpoint was given to you."
                ),
            ],
            outputs=[
                sockets.Preset.Output(display_name="preset"),
                io.String.Output(display_name="text"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        checkpoint: str | None,
        members: str | None,
        title: str | None,
        base_model: str | None,
        licence: str | None,
    ) -> bool | str:
        # A linked input is None here and checked when it is known.
        from ..calibri.preset_metadata import MAX_TEXT

        for name, text in (("title", title), ("base_model", base_model), ("licence", licence)):
            if text is not None and len(text) > MAX_TEXT:
                return f"The {name} has {len(text)} characters; shorten it to {MAX_TEXT}."
        if checkpoint is None or members is None:
            return True
        try:
            _read(checkpoint, members, 0.0)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None, **_: object) -> float:
        if checkpoint is None:  # linked; ComfyUI watches what it is linked to
            return 0.0
        return _path(checkpoint).stat().st_mtime

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        checkpoint: str,
        members: str,
        cfg: float,
        title: str,
        base_model: str,
        licence: str,
    ) -> io.NodeOutput:
        from ..calibri.official_preset import describe_checkpoint, fit_to_model, labelled
        from .patching import backbone_of

        read, preset = _read(checkpoint, members, cfg)
        preset = fit_to_model(read, preset, backbone_of(model))
        preset = labelled(preset, read, _path(checkpoint).name, title, base_model, licence)
        text = describe_checkpoint(read, preset)
        show_on_node(cls.hidden, text)
        return io.NodeOutput(preset, text)


class CalibriExportCheckpoint(io.ComfyNode):
    """Writes a preset as a cmaes_step_NNNN.json, never over another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriExportCheckpoint",
            display_name="Export Calibri Checkpoint",
            category="Calibri/presets",
            **sockets.search_aliases("official checkpoint", "save json", "cmaes_step"),
            description="Writes a preset for FLUX.1, SD3 or Qwen-Image as a checkpoint of "
            "Calibri's official code, into the output folder.",
            inputs=[
                sockets.Preset.Input(
                    "preset", tooltip="From Load Calibri Preset, Calibrate or an import."
                ),
                sockets.filename_prefix("cmaes_step"),
                io.Boolean.Input(
                    "drop_ignored",
                    default=False,
                    tooltip="Leave out what the official code would ignore (the MLP coefficients "
                    "of Qwen-Image) instead of refusing; its pictures will differ.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return folders.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, preset: Preset, filename_prefix: str, drop_ignored: bool) -> io.NodeOutput:
        from ..calibri.official_file import write_checkpoint
        from ..calibri.official_preset import checkpoint_of_preset

        checkpoint = checkpoint_of_preset(preset, drop_ignored)
        path = folders.new_checkpoint_path(filename_prefix)
        return save(cls.hidden, path, lambda path: write_checkpoint(path, checkpoint))


def _path(name: str) -> Path:
    if name == NO_FILE:
        raise ValueError(
            "No checkpoint is chosen; put a cmaes_step_NNNN.json into models/calibri or ComfyUI's "
            "input folder, press R and choose it."
        )
    return folders.checkpoint_path(name)


def _read(name: str, members: str, cfg: float) -> tuple[OfficialCheckpoint, Preset]:
    """The checkpoint and its preset, before any model is known. Raises ValueError."""
    from ..calibri.official_file import read_checkpoint
    from ..calibri.official_preset import preset_of_checkpoint

    if members not in MEMBERS:
        raise ValueError(f"The members {members!r} do not exist; choose {', '.join(MEMBERS)}.")
    checkpoint = read_checkpoint(_path(name))
    return checkpoint, preset_of_checkpoint(checkpoint, MEMBERS[members], cfg or None)
