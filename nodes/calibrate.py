"""Calibrate: search a model's coefficients inside one ComfyUI prompt.

The node's face; `calibration_run.py` is what it does. `background/node.py` has the same inputs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..calibri.coefficients import GRANULARITIES
from ..calibri.search import PROFILES
from ..calibri.settings import widget
from . import folders, sockets
from .messages import show_on_node

OTHER_REWARDS = 3
MOST_HELD_OUT = 64  # prompts, where the node splits one list itself


class CalibriCalibrate(io.ComfyNode):
    """Searches coefficients that raise a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriCalibrate",
            display_name="Calibrate",
            category="Calibri",
            **sockets.search_aliases(
                "optimize model",
                "search coefficients",
                "CMA-ES",
                "evolution strategy",
                "tune model",
            ),
            description="Searches the coefficients of a diffusion transformer's residual branches "
            "that raise a reward, and measures the gain on held-out prompts. Cancel keeps what was "
            "done: the same settings go on where they stopped. A run's results are in "
            "output/calibri, its journal in user/calibri/runs.",
            inputs=[*calibration_inputs(), *ending_inputs()],
            outputs=[
                sockets.Preset.Output(display_name="preset"),
                io.Image.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, run_name: str | None) -> bool | str:
        return check_run_name(run_name)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from .calibration_run import run_calibration
        from .run_settings import with_settings

        say = partial(show_on_node, cls.hidden)
        hidden = cls.hidden  # None where no server runs the node
        graph = (hidden.prompt if hidden else None) or {}
        node = (hidden.unique_id if hidden else None) or ""
        result = run_calibration(say=say, graph=graph, node=node, **with_settings(inputs))
        say(result.text)
        shown = {"images": result.pictures, "text": (result.text,)}
        return io.NodeOutput(result.preset, result.report, ui=shown)


def check_run_name(name: str | None) -> bool | str:
    """True, or what is wrong with a run's name; None is linked, and read when it is known."""
    if name is None:
        return True
    try:
        folders.safe_name(name)
    except ValueError as error:
        return str(error)
    return True


def calibration_inputs() -> list[io.Input]:
    """The node's inputs, in the order in which one decides about them."""
    return [
        io.Model.Input(
            "model",
            tooltip="A diffusion transformer that draws a picture from a prompt: FLUX, SD3.5, "
            "Qwen-Image, Wan … Of a video model, single frames; no input images.",
        ),
        io.Clip.Input("clip", tooltip="Encodes the prompts, once."),
        io.Vae.Input("vae", tooltip="Decodes the images that the reward sees."),
        sockets.Prompts.Input("prompts", tooltip="Prompts to search on, from a Prompt Set."),
        sockets.Prompts.Input(
            "held_out",
            optional=True,
            tooltip="Prompts the gain is measured on and that the search never sees. Without them "
            f"a quarter of the prompts, at most {MOST_HELD_OUT}, is held out.",
        ),
        sockets.Reward.Input("reward", tooltip="What the search raises."),
        *(
            sockets.Reward.Input(
                f"other_reward_{number}",
                optional=True,
                tooltip="Judges the result, plain against calibrated, and takes no part in the "
                "search: where the searched reward rises and this one falls, the preset exploits "
                "it. Connect one later and queue again to have a finished run judged.",
            )
            for number in range(1, OTHER_REWARDS + 1)
        ),
        io.String.Input(
            "negative",
            **widget("negative"),
            multiline=True,
            tooltip="Negative prompt; unused at cfg 1.",
        ),
        io.Combo.Input(
            "sampler",
            options=comfy.samplers.KSampler.SAMPLERS,
            **widget("sampler"),
            tooltip="As in KSampler. Use the sampler you will use the preset with.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            **widget("scheduler"),
            tooltip="As in KSampler.",
        ),
        io.Int.Input("steps", **widget("steps"), tooltip="Fewer steps leave more to calibrate."),
        io.Float.Input(
            "cfg",
            **widget("cfg"),
            step=0.1,
            tooltip="Classifier-free guidance; 1 for models with distilled guidance, as FLUX.1.",
        ),
        io.Float.Input(
            "guidance",
            **widget("guidance"),
            step=0.1,
            tooltip="As in FluxGuidance: 3.5 for FLUX.1-dev, 4 for FLUX.2, 6 for HunyuanVideo, "
            "0 for Chroma; models without distilled guidance ignore it.",
        ),
        io.Int.Input("width", **widget("width"), step=16, tooltip="Of each image, in pixels."),
        io.Int.Input("height", **widget("height"), step=16, tooltip="Of each image, in pixels."),
        io.Combo.Input(
            "granularity",
            options=list(GRANULARITIES),
            **widget("granularity"),
            tooltip="block: one coefficient for each block. layer: one for each attention and MLP. "
            "gate: as layer, but image and text apart.",
        ),
        io.Combo.Input(
            "profile",
            options=list(PROFILES),
            **widget("profile"),
            tooltip="default: evolution strategy with Adam, better with noisy rewards. "
            "paper: CMA-ES as published.",
        ),
        io.Int.Input(
            "generations",
            **widget("generations"),
            tooltip="At most. Each tries a population of candidates (16 by default) on every "
            "prompt of its bucket. Raise it and queue again to go on with a finished run.",
        ),
        io.Int.Input(
            "seed",
            **widget("seed"),
            control_after_generate=False,  # another seed is another run, not the same one continued
            tooltip="Of the search and of all its noise.",
        ),
        io.String.Input(
            "run_name",
            default="run",
            tooltip="Names the run's folders, in output/calibri for its results and in "
            "user/calibri/runs for its journal. The same settings under the same name go on where "
            "they stopped; other settings get new folders.",
        ),
        sockets.advanced(
            io.Int.Input(
                "bucket_size",
                **widget("bucket_size"),
                tooltip="Prompts for each generation, and so images for each candidate; the paper "
                "has 16. 0: 16 in the first two generations, then as many as their noise asks for.",
            )
        ),
        sockets.advanced(
            io.Int.Input(
                "validate_every",
                **widget("validate_every"),
                tooltip="Generations between two measurements on the held-out prompts.",
            )
        ),
        *_member_inputs(),
    ]


def ending_inputs() -> list[io.Input]:
    """Further inputs of the node. They come last of all: widgets of saved workflows go by place."""
    return [
        sockets.Settings.Input(
            "settings",
            optional=True,
            tooltip="From Load Calibration Settings. It stands in for all widgets of this node, "
            "run_name too.",
        ),
        sockets.advanced(
            io.Boolean.Input(
                "stop_early",
                **widget("stop_early"),
                optional=True,
                tooltip="End the search once the held-out prompts show that a further generation "
                "would bring less than a tenth of what one has brought so far. Raise generations "
                "and queue again to go on all the same.",
            )
        ),
        sockets.advanced(
            io.Boolean.Input(
                "keep_anyway",
                **widget("keep_anyway"),
                optional=True,
                tooltip="Where nothing is better than the plain model no preset is saved. On, the "
                "best of what was found is saved all the same, and says so.",
            )
        ),
    ]


def _member_inputs() -> list[io.Input]:
    """What makes an ensemble; optional, so that prompts saved without them still run."""
    return [
        sockets.advanced(
            io.Int.Input(
                "members",
                **widget("members"),
                optional=True,
                tooltip="Above 1 an ensemble is searched: that many sets of coefficients and their "
                "weights. Each member costs a forward in every step.",
            )
        ),
        sockets.advanced(
            io.Boolean.Input(
                "guided_members",
                **widget("guided_members"),
                optional=True,
                tooltip="Two members, one for the prompt and one for the negative prompt, with "
                "weights in place of the CFG scale; cfg, above 1, is the scale they start from.",
            )
        ),
        sockets.Preset.Input(
            "start_from",
            optional=True,
            tooltip="A preset to begin at instead of the plain model, for one member or for more: "
            "new members begin as copies.",
        ),
        sockets.advanced(
            io.Vae.Input(
                "preview_vae",
                optional=True,
                tooltip="A small VAE, as taef1 for FLUX.1 from Load VAE, that decodes the images "
                "of the search many times faster. How far it ranks candidates as the VAE does is "
                "measured on the first images and shown. What is held out is decoded in full.",
            )
        ),
    ]
