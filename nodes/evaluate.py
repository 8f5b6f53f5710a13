"""Evaluate Calibration: the plain model against presets, over steps, cfg, samplers and sizes.

The node's face; `evaluation_run.py` is what it does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from . import folders, sockets
from .calibrate import OTHER_REWARDS, calibration_inputs
from .messages import show_on_node

PRESETS = 3


class CalibriEvaluate(io.ComfyNode):
    """Measures what presets change."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriEvaluate",
            display_name="Evaluate Calibration",
            category="Calibri",
            **sockets.search_aliases(
                "compare models", "benchmark", "before after", "steps sweep", "xy plot"
            ),
            description="Draws the same prompts from the same noise with the plain model and with "
            "up to three presets, over numbers of steps and more, and compares rewards, diversity "
            "and time. The report is in output/calibri. Cancel keeps what was drawn.",
            inputs=_inputs(),
            outputs=[
                io.Image.Output(display_name="report"),
                io.Image.Output(display_name="grid"),
                io.String.Output(display_name="json", tooltip="All numbers of the report."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        steps: str | None,
        cfg: str | None,
        sizes: str | None,
        name: str | None,
        sampler: str | None,
        other_samplers: str | None = "",
    ) -> bool | str:
        from ..calibri.setting_lists import (
            parse_cfg,
            parse_names,
            parse_settings,
            parse_sizes,
            parse_steps,
        )
        from .noise import check_sampler

        checks = (
            (parse_steps, steps),
            (parse_cfg, cfg),
            (parse_sizes, sizes),
            (folders.safe_name, name),
            (_check_samplers, other_samplers),
            (check_sampler, sampler),
        )
        try:
            for check, text in checks:
                if text is not None:  # as a linked input is, which is read when it is known
                    check(text)
            if None not in (steps, cfg, sizes, sampler, other_samplers):
                samplers = (sampler, *parse_names(other_samplers))
                parse_settings(steps, cfg, samplers, "", sizes)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from .evaluation_run import run_evaluation

        say = partial(show_on_node, cls.hidden)
        result = run_evaluation(say=say, **inputs)
        say(result.text)
        shown = {"images": result.pictures, "text": (result.text,)}
        return io.NodeOutput(result.report, result.grid, result.numbers, ui=shown)


def _check_samplers(text: str) -> None:
    from ..calibri.setting_lists import parse_names
    from .noise import check_sampler

    known = comfy.samplers.KSampler.SAMPLERS
    for name in parse_names(text):
        if name not in known:
            raise ValueError(
                f"other_samplers has {name[:40]!r}, which does not exist: choose of these, "
                f"separated by commas: {', '.join(known)}."
            )
        check_sampler(name)


def _inputs() -> list[io.Input]:
    """The node's inputs, in the order in which one decides about them."""
    shared = {given.id: given for given in calibration_inputs()}
    return [
        io.Model.Input(
            "model",
            tooltip="The plain model, without the presets: FLUX, SD3.5, Qwen-Image, Wan …",
        ),
        shared["clip"],
        shared["vae"],
        sockets.Prompts.Input(
            "prompts", tooltip="Prompts that no preset was searched on, from a Prompt Set."
        ),
        sockets.Reward.Input(
            "reward", tooltip="What counts most; the report looks for steps saved by it."
        ),
        sockets.Preset.Input("preset_1", tooltip="Compared with the plain model."),
        *(
            sockets.Preset.Input(f"preset_{number}", optional=True, tooltip="Another one.")
            for number in range(2, PRESETS + 1)
        ),
        *(
            sockets.Reward.Input(
                f"other_reward_{number}",
                optional=True,
                tooltip="Another measure of the same images, best one that nothing was searched "
                "with.",
            )
            for number in range(1, OTHER_REWARDS + 1)
        ),
        *(shared[name] for name in ("negative", "sampler", "scheduler")),
        io.String.Input(
            "steps", default="4, 8, 15, 30", tooltip="Numbers of steps, separated by commas."
        ),
        io.String.Input(
            "cfg",
            default="1",
            tooltip="CFG scales, separated by commas; 1 for models with distilled guidance.",
        ),
        io.String.Input(
            "sizes",
            default="512x512",
            tooltip="Width x height in pixels, separated by commas: 512x512, 768x512.",
        ),
        shared["guidance"],
        io.Int.Input(
            "max_prompts",
            default=32,
            min=2,
            max=4096,
            tooltip="The first so many prompts are drawn. Intervals narrow with their root.",
        ),
        io.Int.Input(
            "images_per_prompt",
            default=2,
            min=1,
            max=16,
            tooltip="Seeds for each prompt. Diversity needs two.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,  # another seed is another evaluation
            tooltip="Of all noise.",
        ),
        io.String.Input(
            "name",
            default="evaluation",
            tooltip="Names the folder in output/calibri. Another evaluation of the same name gets "
            "a folder of its own.",
        ),
        sockets.advanced(
            io.String.Input(
                "other_samplers",
                default="",
                optional=True,
                tooltip="More samplers to compare, separated by commas.",
            )
        ),
    ]
