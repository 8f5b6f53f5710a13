"""Analyze Blocks: what each block of a model does for a reward.

The node's face; `analysis_run.py` is what it does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..calibri.coefficients import GRANULARITIES
from . import sockets
from .calibrate import calibration_inputs, check_run_name
from .messages import show_on_node

# Inputs that are Calibrate's, with its words.
_SHARED = (
    "negative",
    "sampler",
    "scheduler",
    "steps",
    "cfg",
    "guidance",
    "width",
    "height",
    "granularity",
)


class CalibriAnalyzeBlocks(io.ComfyNode):
    """Leaves out and scales one branch after another, and measures what that does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriAnalyzeBlocks",
            display_name="Analyze Blocks",
            category="Calibri",
            **sockets.search_aliases(
                "block sensitivity", "ablation", "skip layers", "block importance"
            ),
            description="Scales one block after another, 0 leaves it out, and measures what that "
            "does to a reward on the same noise. Cancel keeps what was done: the same settings go "
            "on where they stopped. Results are in output/calibri.",
            inputs=_inputs(),
            outputs=[
                io.Image.Output(display_name="heat_map"),
                io.Image.Output(display_name="curves"),
                io.String.Output(display_name="numbers", tooltip="All numbers, as JSON."),
                io.String.Output(
                    display_name="double_layers",
                    tooltip="A suggestion for the input of that name of Skip Layer Guidance.",
                ),
                io.String.Output(
                    display_name="single_layers",
                    tooltip="A suggestion for the input of that name of Skip Layer Guidance.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, scales: str | None, only: str | None, run_name: str | None
    ) -> bool | str:
        from ..calibri.analysis import parse_scales
        from ..calibri.compact_text import parse_patterns

        # A linked input is None here and checked when it is known.
        for name, text, read in (("scales", scales, parse_scales), ("only", only, parse_patterns)):
            try:
                if text is not None:
                    read(text)
            except ValueError as error:
                return f"{name}: {error}"
        return check_run_name(run_name)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from .analysis_run import run_analysis

        say = partial(show_on_node, cls.hidden)
        result = run_analysis(say=say, **inputs)
        say(result.text)
        return io.NodeOutput(
            result.heat_map,
            result.curves,
            result.numbers,
            result.suggestion.double_layers,
            result.suggestion.single_layers,
            ui={"images": result.pictures, "text": (result.text,)},
        )


def _inputs() -> list[io.Input]:
    shared = {given.id: given for given in calibration_inputs()}
    shared["granularity"].default = GRANULARITIES[0]
    return [
        io.Model.Input(
            "model",
            tooltip="A diffusion transformer that draws a picture from a prompt. With Apply "
            "Calibri before it, the preset is what is compared with.",
        ),
        shared["clip"],
        shared["vae"],
        sockets.Prompts.Input(
            "prompts",
            tooltip="Two at least, and the more the narrower the bands. Each is drawn with every "
            "block at every scale.",
        ),
        sockets.Reward.Input("reward", tooltip="What scores the pictures."),
        *(shared[name] for name in _SHARED),
        io.String.Input(
            "scales",
            default="0, 0.5, 0.9, 1.1, 1.5",
            tooltip="What each coefficient is set to, one at a time; 0 leaves it out. 1, the plain "
            "model, is always measured.",
        ),
        io.String.Input(
            "only",
            default="",
            tooltip="Blocks to look at, as in Edit Calibri: double.0-3, single. All if empty.",
        ),
        io.Int.Input(
            "images_per_prompt",
            default=1,
            min=1,
            max=1000,
            tooltip="Seeds of each prompt. Raise it and queue again to go on with an analysis.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,  # another seed is another analysis
            tooltip="Of all noise.",
        ),
        io.String.Input(
            "run_name",
            default="analysis",
            tooltip="Names the folders of its results and of its journal. The same settings under "
            "the same name go on where they stopped; other settings get new folders.",
        ),
    ]
