"""AHPA Router: what was learnt to be weighed when, what the levels hold, what a model says of them.

The node's face; `ahpa_inspection.py` is what it measures.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .messages import show_on_node

if TYPE_CHECKING:
    import torch

    from ..ahpa.router_file import TrainedRouter
    from .training_pictures import TrainingPictures

SHOWN = 6  # pictures whose features are shown
_MISSING = object()


class CalibriAHPARouter(io.ComfyNode):
    """Shows what a router does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriAHPARouter",
            display_name="AHPA Router",
            category="Calibri/training",
            **sockets.search_aliases("inspect router", "alignment", "PCA", "probe"),
            description="Shows what a router of AHPA weighs at each noise level. With vae and "
            "images also what the VAE's levels hold of them, as colours; with model and clip "
            "besides, how much of each level can be read from the aligned block at each noise "
            "level.",
            inputs=[
                sockets.Router.Input(
                    "router", tooltip="From Train LoRA with AHPA or Load AHPA Router."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The one that the router was trained with; needs images.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="A batch or a list; those that were not trained on tell more.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="To measure its alignment: the trained model, or the plain one to "
                    "compare with. Needs vae, images and clip.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Encodes the captions for the model."),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="One for each image, or one for all. Without them the model is told "
                    "nothing.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=32,
                    max=4096,
                    step=16,
                    tooltip="Pixels of the square crop, as in training.",
                ),
                io.Int.Input(
                    "pictures",
                    default=32,
                    min=4,
                    max=1024,
                    tooltip="How many of the images are used, evenly spread. The more, the more "
                    "can be read: compare with equal numbers only.",
                ),
                io.Int.Input(
                    "noise_levels",
                    default=10,
                    min=2,
                    max=100,
                    tooltip="At how many noise levels the model is asked about each picture.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="router_plot", tooltip="The weights over the noise levels."
                ),
                io.Image.Output(
                    display_name="features",
                    tooltip="What the levels hold. Nothing without vae and images.",
                ),
                io.Image.Output(
                    display_name="alignment",
                    tooltip="What can be read from the block. Nothing without a model.",
                ),
                io.String.Output(display_name="numbers", tooltip="All of it as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        model: Any = _MISSING,
        clip: Any = _MISSING,
        vae: Any = _MISSING,
        images: Any = _MISSING,
        captions: Any = _MISSING,
    ) -> bool | str:
        given = {"vae": vae, "images": images, "model": model, "clip": clip, "captions": captions}
        return lacks({name for name, value in given.items() if value is not _MISSING}) or True

    @classmethod
    def execute(
        cls,
        router: list[TrainedRouter | None],
        size: list[int],
        pictures: list[int],
        noise_levels: list[int],
        images: list[torch.Tensor] | None = None,
        captions: list[str] | None = None,
        **sources: list[Any],
    ) -> io.NodeOutput:
        from comfy_execution.graph_utils import ExecutionBlocker

        from ..ahpa.figure_inspection import draw_alignment, draw_features, draw_router
        from ..ahpa.inspection import weighing
        from .ahpa_inspection import group_pictures, readout

        trained = router[0]
        words, numbers = "This method trains no router.", {}
        if trained is not None:
            found = weighing(trained)
            words, numbers = found.words(), found.record()
        show_on_node(cls.hidden, words)
        shown: list[Any] = [_as_image(draw_router(trained))]
        if images is not None and "vae" in sources:
            vae = sources["vae"][0]
            data = _chosen(images, captions, size[0], pictures[0])
            count = min(SHOWN, len(data.pictures))
            model = sources["model"][0] if "model" in sources else None
            asked = 0 if model is None else len(data.pictures) * (2 + noise_levels[0])
            step = _counted(3 * count + asked)
            groups = group_pictures(vae, data.pictures[:count], step)
            numbers["features"] = {group.group: group.record() for group in groups}
            shown.append(_as_image(draw_features(data.pictures[:count].numpy(), groups)))
            if model is not None:
                clip = sources["clip"][0]
                read = readout(model, clip, vae, data, trained, noise_levels[0], step)
                numbers["alignment"] = read.record()
                shown.append(_as_image(draw_alignment(read)))
        nothing = [ExecutionBlocker(None)] * (3 - len(shown))
        return io.NodeOutput(
            *shown, *nothing, json.dumps(numbers, ensure_ascii=False), ui={"text": (words,)}
        )


def lacks(linked: set[str]) -> str:
    """What is missing beside these optional inputs, in a sentence; "" where nothing is."""
    needs = {
        "vae": ("images",),
        "images": ("vae",),
        "model": ("vae", "images", "clip"),
        "captions": ("images",),
    }
    for name, others in needs.items():
        missing = [other for other in others if other not in linked]
        if name in linked and missing:
            return (
                f"{name} is connected and {' and '.join(missing)} not: connect "
                f"{'it' if len(missing) == 1 else 'them'}, or disconnect {name}."
            )
    return ""


def _as_image(picture: Any) -> torch.Tensor:
    """[H, W, 3] in bytes → ComfyUI's IMAGE [1, H, W, 3]."""
    import torch

    return torch.from_numpy(picture.copy()).float()[None] / 255


def _chosen(
    images: list[torch.Tensor], captions: list[str] | None, size: int, most: int
) -> TrainingPictures:
    """Up to `most` of the pictures, evenly spread, cropped; ValueError in a sentence."""
    import torch

    from ..ahpa.pictures import crop
    from ..ahpa.targets import spread
    from .training_pictures import TrainingPictures, spread_captions

    pictures = [picture for batch in images for picture in batch]
    count = len(pictures)
    texts = [""] * count if captions is None else spread_captions(captions, count)
    rows = spread(count, most)
    cropped = torch.stack([crop(pictures[row], size) for row in rows])
    return TrainingPictures(cropped, tuple(texts[row] for row in rows))


def _counted(total: int) -> Any:
    """A step that counts on the progress bar; also a point where Cancel takes effect."""
    import comfy.model_management
    import comfy.utils

    bar = comfy.utils.ProgressBar(total)

    def step() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    return step
