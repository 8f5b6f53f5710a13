"""Train LoRA with AHPA: a LoRA learnt from pictures, its model aligned to levels of its own VAE.

The node's face; `ahpa_run.py` is what it does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node
from .train_ahpa_inputs import training_inputs

_MISSING = object()


class CalibriTrainAHPA(io.ComfyNode):
    """Trains a LoRA and saves it for the stock loaders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriTrainAHPA",
            display_name="Train LoRA with AHPA",
            category="Calibri/training",
            **sockets.search_aliases(
                "train lora", "fine-tune", "dreambooth", "representation alignment", "REPA"
            ),
            description="Trains a LoRA on pictures with captions by flow matching, and aligns one "
            "block of the model to features of its own VAE, weighed by the noise level (AHPA). "
            "The LoRA is saved to models/loras for the stock Load LoRA. Cancel keeps what was "
            "done: the same settings go on where they stopped. Experimental.",
            inputs=training_inputs(),
            outputs=[
                io.Model.Output(display_name="model", tooltip="With the LoRA that was saved."),
                io.Custom("LORA_MODEL").Output(
                    display_name="lora", tooltip="For ComfyUI's own Load LoRA Model and Save LoRA."
                ),
                io.Image.Output(display_name="losses"),
                io.Image.Output(
                    display_name="router_plot", tooltip="Which levels were used at which noise."
                ),
                sockets.Router.Output(
                    display_name="router",
                    tooltip="What was learnt: for AHPA Router and Save AHPA Router, and for the "
                    "methods reversed and frozen.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        folder: Any,
        size: Any,
        filename_prefix: Any,
        run_name: Any,
        method: Any,
        levels: Any,
        images: Any = _MISSING,
        captions: Any = _MISSING,
        clip_vision: Any = _MISSING,
        router: Any = _MISSING,
    ) -> bool | str:
        from .training_pictures import check_folder

        name, side, words = _one(folder), _one(size), _one(levels)
        try:
            for given in (filename_prefix, run_name):
                if _one(given) is not None:
                    folders.safe_name(_one(given))
            if name is not None and name.strip() and side is not None:
                check_folder(name, int(side))
        except ValueError as error:
            return str(error)
        if images is _MISSING and name is not None and not name.strip():
            return (
                "There are no pictures to train on: connect images and captions, or name a folder "
                "of them below ComfyUI's input folder."
            )
        if images is not _MISSING and captions is _MISSING:
            return "The images have no captions: connect captions, one for each image."
        if _one(method) == "repa" and clip_vision is _MISSING:
            return (
                "The method repa aligns to an image encoder: connect clip_vision, or choose "
                "another method."
            )
        if _one(method) in ("reversed", "frozen") and router is _MISSING:
            return (
                f"The method {_one(method)} needs a router that was trained before: connect the "
                "router of another Train LoRA with AHPA, or Load AHPA Router."
            )
        if words is not None and not words.strip():
            return "levels is empty: give groups such as 'middle, deep', or names of levels."
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: Any = None, **_: Any) -> str:
        """Another one when a picture or caption of the folder has changed."""
        from .training_pictures import folder_mark

        name = _one(folder)
        return folder_mark(name) if isinstance(name, str) and name.strip() else ""

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        from ..ahpa.recipe import Recipe
        from .ahpa_run import train_lora
        from .training_pictures import gather

        images, captions = inputs.pop("images", None), inputs.pop("captions", None)
        given = {name: _one(value) for name, value in inputs.items()}
        data = gather(images or (), captions or (), given.pop("folder"), given.pop("size"))
        named = ("model", "clip", "vae", "rank", "filename_prefix", "run_name")
        beside = {name: given.pop(name) for name in named}
        say = partial(show_on_node, cls.hidden)
        result = train_lora(
            data=data,
            checkpointing=given.pop("gradient_checkpointing"),
            vision=given.pop("clip_vision", None),
            router=given.pop("router", None),
            say=say,
            **beside,
            recipe=Recipe(**given),
        )
        say(result.text)
        return io.NodeOutput(
            result.model,
            result.lora,
            result.losses,
            result.router_picture,
            result.router,
            ui={"text": (result.text,)},
        )


def _one(value: Any) -> Any:
    """Of an input that comes as a list, as all of this node's do; None for a linked one."""
    return value[0] if isinstance(value, (list, tuple)) and value else value
