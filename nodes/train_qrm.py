"""Train QRM: train a Quality Representation Module inside one ComfyUI prompt.

The node's face; `qrm_training.py` is what it does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from . import sockets
from .calibrate import check_run_name
from .messages import show_on_node

MODES = ("add", "scale", "gates")  # `qrm.layout.MODES`, which ComfyUI's start need not import
PRECISIONS = ("bfloat16", "float32")
LOSSES = ("flow", "late", "last", "difficulty", "size")


class CalibriTrainQRM(io.ComfyNode):
    """Trains a module that tells each block how to modulate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriTrainQRM",
            display_name="Train QRM",
            category="Calibri/QRM",
            description="Trains a Quality Representation Module on a frozen model so that a reward "
            "of its pictures rises. Cancel keeps what was done: the same settings go on where they "
            "stopped. Results are in output/calibri/qrm, states in user/calibri/qrm-runs.",
            inputs=[*_what(), *_how(), *_more()],
            outputs=[
                sockets.QRM.Output(display_name="qrm"),
                io.Image.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **sockets.search_aliases("fine-tune", "finetune", "adaLN", "modulation", "quality"),
        )

    @classmethod
    def validate_inputs(
        cls,
        run_name: str | None,
        flow_weight: float | None,
        late_weight: float | None,
        last_weight: float | None,
        backward_steps: int | None,
        sampling_steps: int | None,
    ) -> bool | str:
        weights = (flow_weight, late_weight, last_weight)
        if None not in weights and not any(weights):
            return (
                "flow_weight, late_weight and last_weight are all 0, so nothing would change the "
                "pictures; give one of them a weight."
            )
        if None not in (backward_steps, sampling_steps) and backward_steps > sampling_steps:
            return (
                f"backward_steps is {backward_steps} and sampling_steps {sampling_steps}; "
                "gradients go through at most as many steps as there are."
            )
        return check_run_name(run_name)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from ..qrm.recipe import LossWeights, Recipe
        from .qrm_trainee import Drawing
        from .qrm_training import train_qrm

        losses = LossWeights(**{name: inputs.pop(f"{name}_weight") for name in LOSSES})
        drawing = Drawing(
            scheduler=inputs.pop("scheduler"),
            steps=inputs.pop("sampling_steps"),
            **{name: inputs.pop(name) for name in ("cfg", "guidance", "width", "height")},
            negative=inputs.pop("negative"),
        )
        own = Recipe.__dataclass_fields__.keys() & inputs.keys()
        recipe = Recipe(losses=losses, **{name: inputs.pop(name) for name in own})
        say = partial(show_on_node, cls.hidden)
        result = train_qrm(drawing=drawing, recipe=recipe, say=say, **inputs)
        say(result.text)
        shown = {"images": result.pictures, "text": (result.text,)}
        return io.NodeOutput(result.file, result.report, ui=shown)


def _what() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip="A diffusion transformer that draws pictures, loaded by ComfyUI's own loader. "
            "It is not changed: training works on a copy.",
        ),
        io.Clip.Input("clip", tooltip="Encodes the prompts, once."),
        io.Vae.Input("vae", tooltip="Decodes the pictures that the reward sees."),
        sockets.Prompts.Input("prompts", tooltip="Prompts to train on, from a Prompt Set."),
        sockets.Prompts.Input(
            "held_out",
            optional=True,
            tooltip="Prompts that decide when training has gone far enough. Without them a quarter "
            "of the prompts, at most 32. Judge the result on prompts that are in neither.",
        ),
        sockets.Reward.Input(
            "reward",
            tooltip="What is to rise. Without a gradient, a search of a few numbers takes the "
            "place of training, and a step is one of its generations.",
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="One picture for each of the prompts, in their order, for flow_weight.",
        ),
        io.String.Input(
            "negative", default="", multiline=True, tooltip="Negative prompt; unused at cfg 1."
        ),
    ]


def _how() -> list[io.Input]:
    return [
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="simple",
            tooltip="As in KSampler; training draws with euler.",
        ),
        io.Int.Input(
            "sampling_steps", default=10, min=1, max=100, tooltip="As you will draw with the QRM."
        ),
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Classifier-free guidance; 1 for models with distilled guidance, as FLUX.1.",
        ),
        io.Float.Input(
            "guidance",
            default=3.5,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="As in FluxGuidance; models without distilled guidance ignore it.",
        ),
        io.Int.Input("width", default=512, min=16, max=4096, step=16, tooltip="In pixels."),
        io.Int.Input("height", default=512, min=16, max=4096, step=16, tooltip="In pixels."),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            tooltip="add: to every shift, scale and gate. scale: multiplies them. gates: "
            "multiplies the gates alone, which every family has.",
        ),
        io.Int.Input("steps", default=400, min=1, max=1_000_000, tooltip="Of training, at most."),
        io.Int.Input("batch", default=1, min=1, max=256, tooltip="Pictures at once."),
        io.Int.Input(
            "accumulate",
            default=4,
            min=1,
            max=256,
            tooltip="Batches for one step; as good as a larger batch, in less memory.",
        ),
        io.Float.Input(
            "learning_rate", default=0.001, min=1e-7, max=1.0, step=1e-7, tooltip="Adam's."
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,  # another seed is another run, not the same one continued
            tooltip="Of the module's first weights and of all noise.",
        ),
        io.String.Input(
            "run_name",
            default="qrm",
            tooltip="Names the run's folders. The same settings under the same name go on where "
            "they stopped; other settings get folders of their own.",
        ),
    ]


def _more() -> list[io.Input]:
    def weight(name: str, default: float, tooltip: str) -> Any:
        return sockets.advanced(
            io.Float.Input(
                f"{name}_weight", default=default, min=0.0, max=100.0, step=0.001, tooltip=tooltip
            )
        )

    return [
        weight("flow", 0.0, "Of flow matching on the images: keeps to what pictures look like."),
        weight("late", 1.0, "Of the reward of a late step's own guess at the picture."),
        weight("last", 1.0, "Of the reward of the finished picture, through the last steps."),
        weight("difficulty", 0.1, "Of the quality token's guess at the plain model's reward."),
        weight("size", 0.01, "Of the vectors' mean square: keeps them small."),
        sockets.advanced(
            io.Int.Input(
                "backward_steps",
                default=1,
                min=1,
                max=100,
                tooltip="Sampling steps, the last ones, that gradients go through.",
            )
        ),
        sockets.advanced(
            io.Int.Input(
                "validate_every",
                default=25,
                min=1,
                max=10_000,
                tooltip="Steps after which the held-out prompts are drawn.",
            )
        ),
        sockets.advanced(
            io.Int.Input(
                "patience",
                default=4,
                min=0,
                max=1000,
                tooltip="Ends after so many of these without a better mean; 0 never does.",
            )
        ),
        sockets.advanced(
            io.Combo.Input(
                "precision",
                options=list(PRECISIONS),
                tooltip="Of what autocast may compute in half; weights and sums stay float32.",
            )
        ),
        sockets.advanced(
            io.Boolean.Input(
                "checkpointing",
                default=True,
                tooltip="Computes blocks again for their gradients: less memory, a third slower.",
            )
        ),
    ]
