"""Prompt lists: written down, read from a file, or made for the demo."""

from __future__ import annotations

from comfy_api.latest import io

from ..calibri.prompts import parse_prompts, read_prompts
from . import folders, sockets

NO_FILE = "none"


class CalibriPromptSet(io.ComfyNode):
    """A list of prompts to calibrate or validate on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriPromptSet",
            display_name="Prompt Set",
            category="Calibri/prompts",
            **sockets.search_aliases("prompt list", "text prompts", "dataset", "batch prompts"),
            description="Prompts for a calibration, one a line; lines that begin with # and "
            "repeated prompts are left out.",
            inputs=[
                io.Combo.Input(
                    "source",
                    options=["text", "file", "demo"],
                    tooltip="text: the lines below. file: a text file in ComfyUI's input folder. "
                    "demo: made for Calibri's demo model.",
                ),
                io.String.Input(
                    "text", multiline=True, default="", tooltip="The prompts, one a line."
                ),
                io.Combo.Input(
                    "file",
                    options=[NO_FILE, *folders.input_text_files()],
                    tooltip="A .txt file in ComfyUI's input folder.",
                ),
                io.Int.Input(
                    "count", default=64, min=1, max=4096, tooltip="How many, for the demo."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Which ones, for the demo.",
                ),
                io.Combo.Input(
                    "split",
                    options=["train", "test"],
                    tooltip="For the demo. test: prompts of pictures the demo model never saw.",
                ),
            ],
            outputs=[sockets.Prompts.Output(display_name="prompts")],
        )

    @classmethod
    def validate_inputs(cls, source: str, text: str | None, file: str | None) -> bool | str:
        # A linked input is None here and checked when it is known.
        try:
            if source == "text" and text is not None:
                parse_prompts(text)
            if source == "file" and file is not None:
                _read_file(file)
        except ValueError as error:
            return str(error)
        if source not in (None, "text", "file", "demo"):
            return f"The source {source!r} does not exist; choose text, file or demo."
        return True

    @classmethod
    def fingerprint_inputs(cls, source: str | None, file: str | None, **_: object) -> float:
        # A linked input is None here; ComfyUI watches what it is linked to.
        if source != "file" or file is None or file == NO_FILE:
            return 0.0
        path = folders.input_path(file)
        return path.stat().st_mtime if path.is_file() else -1.0

    @classmethod
    def execute(
        cls, source: str, text: str, file: str, count: int, seed: int, split: str
    ) -> io.NodeOutput:
        if source == "demo":
            from ..demo.prompts import generate_prompts

            return io.NodeOutput(tuple(generate_prompts(count, seed, split)))
        return io.NodeOutput(_read_file(file) if source == "file" else parse_prompts(text))


def _read_file(name: str) -> tuple[str, ...]:
    if name == NO_FILE:
        raise ValueError(
            "No prompt file is chosen; put a .txt file with one prompt a line into ComfyUI's input "
            "folder, press R and choose it."
        )
    path = folders.input_path(name)
    if path.suffix.lower() != ".txt":
        raise ValueError(f"{name!r} is not a .txt file; save the prompts as text, one a line.")
    return read_prompts(path)
