"""A preset that travels inside the workflow, as text."""

from __future__ import annotations

from comfy_api.latest import io

from . import sockets
from .messages import show_on_node
from .presets import words


class CalibriPresetInWorkflow(io.ComfyNode):
    """Reads a preset from its own text, so that the workflow needs no second file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriPresetInWorkflow",
            display_name="Calibri Preset in Workflow",
            category="Calibri/presets",
            **sockets.search_aliases("preset text", "paste preset", "embedded preset"),
            description="A preset as text within the workflow, so that who gets the workflow needs "
            "no preset file. Copy the text in the tab Calibri presets.",
            inputs=[
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="A whole preset as text, as the tab Calibri presets copies it. Where "
                    "a coefficient is changed by hand, what was measured is left out.",
                )
            ],
            outputs=[sockets.Preset.Output(display_name="preset")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, text: str | None) -> bool | str:
        from ..calibri.preset_text import PresetTextError, read_preset_text

        if text is None:  # linked; read when it is known
            return True
        try:
            read_preset_text(text)
        except PresetTextError as error:
            return f"text: {error}"
        return True

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        from ..calibri.preset_text import read_preset_text

        preset = read_preset_text(text)
        title = f"{preset.title}. " if preset.title else ""
        show_on_node(cls.hidden, title + words(preset))
        return io.NodeOutput(preset)
