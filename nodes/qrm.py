"""Quality Representation Modules as files in models/qrm, and on a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node
from .saving import save

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..qrm.files import QRMFile

# `qrm_layer.GUIDANCE`, which ComfyUI's start need not import.
GUIDANCE = ("both", "positive only")


class CalibriLoadQRM(io.ComfyNode):
    """Reads a QRM file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadQRM",
            display_name="Load QRM",
            category="Calibri/QRM",
            **sockets.search_aliases("quality", "modulation", "adaLN"),
            description="Loads a Quality Representation Module from models/qrm.",
            inputs=[
                io.Combo.Input(
                    "qrm_name",
                    options=folders.qrm_files(),
                    tooltip="A .safetensors file in models/qrm.",
                )
            ],
            outputs=[sockets.QRM.Output(display_name="qrm")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, qrm_name: str | None) -> bool | str:
        if qrm_name is None:  # linked; read when it is known
            return True
        from ..qrm.files import read_header

        try:
            read_header(folders.qrm_path(qrm_name))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, qrm_name: str | None) -> float:
        if qrm_name is None:  # linked; ComfyUI watches what it is linked to
            return 0.0
        return folders.qrm_path(qrm_name).stat().st_mtime

    @classmethod
    def execute(cls, qrm_name: str) -> io.NodeOutput:
        from ..qrm.files import load_qrm

        file = load_qrm(folders.qrm_path(qrm_name))
        show_on_node(cls.hidden, _words(file))
        return io.NodeOutput(file)


class CalibriSaveQRM(io.ComfyNode):
    """Writes a QRM file, never over another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSaveQRM",
            display_name="Save QRM",
            category="Calibri/QRM",
            **sockets.search_aliases("save quality module"),
            description="Saves a QRM to models/qrm under the next free number.",
            inputs=[
                sockets.QRM.Input("qrm", tooltip="From Train QRM."),
                sockets.filename_prefix("qrm"),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return folders.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, qrm: QRMFile, filename_prefix: str) -> io.NodeOutput:
        from ..qrm.files import save_qrm

        path = folders.new_qrm_path(filename_prefix)
        return save(cls.hidden, path, lambda path: save_qrm(path, qrm))


class CalibriApplyQRM(io.ComfyNode):
    """Modulates a model's blocks by a QRM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriApplyQRM",
            display_name="Apply QRM",
            category="Calibri/QRM",
            **sockets.search_aliases("quality", "modulation", "adaLN", "prompt aware"),
            description="Lets a Quality Representation Module tell each block of a diffusion "
            "transformer how to modulate, for this prompt at this noise level. Nothing is written "
            "into the weights; several in a row add up, and presets act besides.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the QRM was trained on."),
                sockets.QRM.Input("qrm", tooltip="From Load QRM or Train QRM."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="0 is the plain model, 1 the QRM as it was trained.",
                ),
                *sockets.percents("QRM"),
                sockets.advanced(
                    io.Int.Input(
                        "reuse_steps",
                        default=1,
                        min=1,
                        max=100,
                        tooltip="1 asks the QRM in every step. 2 asks it in every second step and "
                        "keeps what it said for the next.",
                    )
                ),
                sockets.advanced(
                    io.Combo.Input(
                        "guidance",
                        options=list(GUIDANCE),
                        default=GUIDANCE[0],
                        tooltip="Which predictions of classifier-free guidance it acts on. Each "
                        "has vectors of its own prompt.",
                    )
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def validate_inputs(cls, start_percent: float | None, end_percent: float | None) -> bool | str:
        return sockets.check_percents(start_percent, end_percent, "QRM") or True

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        qrm: QRMFile,
        strength: float,
        start_percent: float,
        end_percent: float,
        reuse_steps: int,
        guidance: str,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            with_qrm(model, qrm, strength, start_percent, end_percent, reuse_steps, guidance)
        )


def with_qrm(
    model: ModelPatcher,
    qrm: QRMFile,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    reuse_steps: int = 1,
    guidance: str = "both",
) -> ModelPatcher:
    """A clone of `model` on which the QRM acts, as Apply QRM's inputs say.

    Raises ValueError for percents between which there is nothing and for another architecture than
    the QRM's.
    """
    from ..qrm.files import check_qrm
    from .identity import fingerprint_of
    from .patching import apply_qrm, diffusion_model
    from .qrm_layer import QRMLayer

    wrong = sockets.check_percents(start_percent, end_percent, "QRM")
    if wrong:
        raise ValueError(wrong)
    check_qrm(qrm, diffusion_model(model))
    if qrm.fingerprint not in ("", fingerprint_of(model)):
        logging.warning(
            "Calibri: the QRM %r was trained on another model of this family (%s); "
            "it may help less here.",
            qrm.title,
            qrm.base_model or "not named",
        )
    if strength == 0.0:
        return model.clone()
    layer = QRMLayer(qrm.module, strength, start_percent, end_percent, reuse_steps, guidance)
    return apply_qrm(model, layer)


def _words(file: QRMFile) -> str:
    """What a QRM is for, and what it was made of."""
    config = file.module.config
    mode = {"add": "adds to", "scale": "scales", "gates": "scales the gates of"}[config.mode]
    title = f"{file.title}. " if file.title else ""
    made = f" Trained on {file.base_model}." if file.base_model else ""
    count = sum(parameter.numel() for parameter in file.module.parameters())
    return f"{title}For {file.family}; {mode} the modulation; {count:,} parameters.{made}"
