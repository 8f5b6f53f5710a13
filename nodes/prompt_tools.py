"""Load Prompts, Split Prompts and Prompt Template: prompt sets out of files and templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from ..calibri.prompt_sets import SUFFIXES, read_prompt_set, sample_prompts, split_in_three
from ..calibri.prompt_templates import expand_template, parse_lists
from . import folders, sockets
from .messages import show_on_node

if TYPE_CHECKING:
    from comfy.sd import CLIP

NO_FILE = "none"
MOST = 100_000  # prompts


class CalibriLoadPrompts(io.ComfyNode):
    """Prompts from a file, chosen by tag and drawn by weight."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadPrompts",
            display_name="Load Prompts",
            category="Calibri/prompts",
            **sockets.search_aliases("prompt file", "csv", "json", "prompt list", "dataset"),
            description="Prompts from a .txt, .csv or .json file in ComfyUI's input folder, all of "
            "them or a sample. Repeated prompts are left out.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[NO_FILE, *input_files(SUFFIXES)],
                    tooltip=".txt: one prompt a line. .csv: columns prompt, tags, weight. .json: "
                    "a list of prompts, or of objects with these keys.",
                ),
                io.String.Input(
                    "tags",
                    default="",
                    tooltip="Only prompts with one of these tags, separated by commas; empty: all.",
                ),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=MOST,
                    tooltip="How many, drawn by weight and seed; 0: all.",
                ),
                _seed("Draws the sample."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Counts the prompts that are longer than this text encoder reads.",
                ),
            ],
            outputs=[sockets.Prompts.Output(display_name="prompts")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        if file is None:  # linked; read when it is known
            return True
        try:
            read_prompt_set(_path(file))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **_: object) -> float:
        if file is None or file == NO_FILE:
            return 0.0
        path = folders.input_path(file)
        return path.stat().st_mtime if path.is_file() else -1.0

    @classmethod
    def execute(
        cls, file: str, tags: str, count: int, seed: int, clip: CLIP | None = None
    ) -> io.NodeOutput:
        known = read_prompt_set(_path(file))
        prompts = sample_prompts(known, tags.split(","), count, seed)
        said = f"{len(prompts)} of {len(known)} prompts of {file}"
        show_on_node(cls.hidden, said + _too_long(prompts, clip))
        return io.NodeOutput(prompts)


class CalibriSplitPrompts(io.ComfyNode):
    """Three lists of prompts that share none."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSplitPrompts",
            display_name="Split Prompts",
            category="Calibri/prompts",
            **sockets.search_aliases("train test split", "held out", "validation set"),
            description="Splits prompts into those to search on, those to validate on and those to "
            "test with at the very end. Prompts that differ in case or spaces alone stay together.",
            inputs=[
                sockets.Prompts.Input("prompts", tooltip="From Load Prompts or a Prompt Set."),
                *(
                    io.Float.Input(
                        name, default=0.2, min=0.0, max=0.9, step=0.01, tooltip=f"Share of {what}."
                    )
                    for name, what in (("validation", "Calibrate's held_out"), ("test", "the last"))
                ),
                _seed("Decides what goes where; each prompt's place depends on its own words."),
            ],
            outputs=[
                sockets.Prompts.Output(display_name=name)
                for name in ("train", "validation", "test")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, prompts: tuple[str, ...], validation: float, test: float, seed: int
    ) -> io.NodeOutput:
        parts = split_in_three(prompts, validation, test, seed)
        train, validated, tested = (len(part) for part in parts)
        show_on_node(cls.hidden, f"{train} train, {validated} validation, {tested} test")
        return io.NodeOutput(*parts)


class CalibriPromptTemplate(io.ComfyNode):
    """Prompts made of a template and lists of words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriPromptTemplate",
            display_name="Prompt Template",
            category="Calibri/prompts",
            **sockets.search_aliases("wildcards", "dynamic prompts", "random prompt"),
            description="Makes prompts of templates: {a|b} stands for one of its parts, __name__ "
            "for one word of a list.",
            inputs=[
                io.String.Input(
                    "template",
                    multiline=True,
                    default="a photo of {a|two} __colour__ {cubes|balls}",
                    dynamic_prompts=False,
                    tooltip="One template a line.",
                ),
                io.String.Input(
                    "lists",
                    multiline=True,
                    default="colour: red, green, blue",
                    dynamic_prompts=False,
                    tooltip="One list a line: its name, a colon, and its words between commas.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=MOST,
                    tooltip="At most so many; all that there are, or drawn by seed.",
                ),
                _seed("Draws the prompts, where there are more than count."),
            ],
            outputs=[sockets.Prompts.Output(display_name="prompts")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, template: str | None, lists: str | None) -> bool | str:
        if template is None or lists is None:  # linked; read when they are known
            return True
        try:
            expand_template(template, parse_lists(lists), 1, 0)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, template: str, lists: str, count: int, seed: int) -> io.NodeOutput:
        prompts = expand_template(template, parse_lists(lists), count, seed)
        show_on_node(cls.hidden, f"{len(prompts)} prompts, the first: {prompts[0]}")
        return io.NodeOutput(prompts)


def input_files(suffixes: Sequence[str]) -> list[str]:
    """Files of these kinds in ComfyUI's input folder and its subfolders, by relative names."""
    root = folder_paths.get_input_directory()
    files, _ = folder_paths.recursive_search(root, excluded_dir_names=[".git"])
    return sorted(
        file.replace("\\", "/") for file in files if Path(file).suffix.lower() in suffixes
    )


def _path(name: str) -> Path:
    if name == NO_FILE:
        raise ValueError(
            "No prompt file is chosen; put a .txt, .csv or .json file into ComfyUI's input folder, "
            "press R and choose it."
        )
    return folders.input_path(name)


def _seed(tooltip: str) -> io.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=2**32 - 1, control_after_generate=False, tooltip=tooltip
    )


def _too_long(prompts: Sequence[str], clip: CLIP | None) -> str:
    """A warning of prompts that a text encoder cannot read in one piece."""
    if clip is None:
        return ""
    # A tokenizer with a limit cuts longer prompts into pieces, which never see each other.
    longer = [text for text in prompts if _pieces(clip, text) > 1]
    if not longer:
        return ""
    return (
        f"\nWarning: {len(longer)} of {len(prompts)} prompts are longer than the text encoder "
        f"reads at once, and are read in pieces; shorten them if you can, as in: {longer[0][:80]}"
    )


def _pieces(clip: CLIP, text: str) -> int:
    """The smallest number over a model's encoders: one that reads all of it is enough."""
    tokens = clip.tokenize(text)
    return min((len(pieces) for pieces in tokens.values()), default=1)
