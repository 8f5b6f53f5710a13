"""The demo's text encoder as a node; `demo_clip.py` builds the CLIP."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from . import sockets
from .folders import text_encoder_files


class CalibriLoadDemoTextEncoder(io.ComfyNode):
    """Loads the demo's text encoder file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadDemoTextEncoder",
            display_name="Load Demo Text Encoder",
            category="Calibri/demo",
            **sockets.search_aliases("demo clip", "load clip"),
            description="The small word-level text encoder of Calibri's demo model, as a CLIP for "
            "the stock CLIP Text Encode node. It knows the demo's words only.",
            inputs=[
                io.Combo.Input(
                    "text_encoder",
                    options=text_encoder_files(),
                    tooltip="A file from models/text_encoders or the demo's own folder.",
                )
            ],
            outputs=[io.Clip.Output(display_name="CLIP")],
        )

    @classmethod
    def execute(cls, text_encoder: str) -> io.NodeOutput:
        from .demo_clip import load_text_encoder

        path = folder_paths.get_full_path_or_raise("text_encoders", text_encoder)
        return io.NodeOutput(load_text_encoder(Path(path)))
