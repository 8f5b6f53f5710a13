"""The demo's own scenes with their captions, as a set of training pictures that is always there."""

from __future__ import annotations

from comfy_api.latest import io

from . import sockets


class CalibriDemoPictures(io.ComfyNode):
    """Draws scenes of the kind that the demo model was trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriDemoPictures",
            display_name="Demo Pictures",
            category="Calibri/demo",
            **sockets.search_aliases("demo dataset", "training pictures", "toy dataset"),
            description="Pictures of one to three shapes, 64 x 64 pixels, with captions in the "
            "demo model's words: something to train on at once. Their prompts are never those that "
            "measurements hold out.",
            inputs=[
                io.Int.Input("count", default=32, min=1, max=4096, tooltip="Pictures."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Other numbers draw other scenes.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="A list of single pictures."
                ),
                io.String.Output(
                    display_name="captions", is_output_list=True, tooltip="What each one shows."
                ),
            ],
        )

    @classmethod
    def execute(cls, count: int, seed: int) -> io.NodeOutput:
        import torch

        from ..demo.prompts import is_held_out, to_text
        from ..demo.render import render
        from ..demo.scenes import sample_pairs

        images, captions = [], []
        for description, scene in sample_pairs(seed, arranged=True):
            text = to_text(description)
            if is_held_out(text):
                continue
            images.append(torch.from_numpy(render(scene)).float()[None] / 255)
            captions.append(text)
            if len(images) == count:
                break
        return io.NodeOutput(images, captions)
