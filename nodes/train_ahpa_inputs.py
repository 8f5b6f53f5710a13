"""The inputs of Train LoRA with AHPA."""

from __future__ import annotations

from comfy_api.latest import io

from . import sockets

# Here and not from ahpa/, which imports torch: all nodes are listed at ComfyUI's start.
METHODS = (
    "ahpa",
    "none",
    "latents",
    "deepest",
    "uniform",
    "static",
    "by hand",
    "reversed",
    "frozen",
    "sra",
    "repa",
    "sinusoidal",
    "content",
    "lookup",
    "depth 3",
    "depth 8",
)
TIMES = ("logit-normal", "uniform")


def training_inputs() -> list[io.Input]:
    """In the order in which one decides about them."""
    return [
        io.Model.Input(
            "model",
            tooltip="Trained by flow matching: SD3.5, FLUX, Chroma, Qwen-Image, Wan, Lumina 2, "
            "Z-Image. It stays as it is.",
        ),
        io.Clip.Input("clip", tooltip="Encodes the captions, once."),
        io.Vae.Input("vae", tooltip="The model's own: its encoder gives latents and features."),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="A batch or a list, as ComfyUI's dataset nodes give it.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="A list with one for each image, as ComfyUI's dataset nodes give it; or one "
            "text with a line for each image, or with one line for all.",
        ),
        io.String.Input(
            "folder",
            default="",
            tooltip="A folder below ComfyUI's input folder, each picture with a .txt file of its "
            "name. Beside images, both are used.",
        ),
        io.Int.Input(
            "size",
            default=512,
            min=32,
            max=4096,
            step=16,
            tooltip="Pixels of the square crop: pictures are scaled down to it, never up.",
        ),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default="ahpa",
            tooltip="ahpa: levels of the VAE, weighed by the noise level. none: a plain LoRA. The "
            "others are baselines and ablations; docs/ahpa.md has them.",
        ),
        io.Int.Input("steps", default=500, min=1, max=1_000_000, tooltip="Of training."),
        io.Int.Input("batch", default=1, min=1, max=1024, tooltip="Pictures at once."),
        io.Int.Input("rank", default=16, min=1, max=512, tooltip="Of the LoRA."),
        io.Float.Input(
            "learning_rate", default=2e-4, min=1e-7, max=1.0, step=1e-7, tooltip="Of the LoRA."
        ),
        io.Float.Input(
            "weight", default=0.5, min=0.0, max=10.0, step=0.05, tooltip="Of the alignment (λ)."
        ),
        io.Int.Input(
            "block",
            default=0,
            min=0,
            max=1000,
            tooltip="Which block is aligned, counted from 1; 0: a quarter of the depth.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**53,
            control_after_generate=False,  # another seed is another run, not the same one continued
            tooltip="Of everything that is drawn.",
        ),
        sockets.filename_prefix("ahpa"),
        io.String.Input(
            "run_name",
            default="ahpa",
            tooltip="Names the folder in user/calibri/ahpa/runs where the state is kept. The same "
            "settings go on where they stopped.",
        ),
        io.ClipVision.Input(
            "clip_vision", optional=True, tooltip="The image encoder of the method repa."
        ),
        sockets.Router.Input(
            "router",
            optional=True,
            tooltip="Of another training, or from Load AHPA Router: for reversed and frozen.",
        ),
        *(sockets.advanced(widget) for widget in _advanced_inputs()),
    ]


def _advanced_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "levels",
            default="middle, deep",
            tooltip="Groups (shallow, middle, deep) or single levels of the VAE's encoder.",
        ),
        io.Int.Input(
            "weight_off",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="λ falls to 0 until this step and stays there; 0 keeps it.",
        ),
        io.Float.Input(
            "router_rate",
            default=3e-3,
            min=1e-6,
            max=1.0,
            step=1e-6,
            tooltip="Learning rate of the router. At 1e-2 it saturates.",
        ),
        io.Float.Input(
            "entropy",
            default=0.05,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How much the router is held from choosing one level alone (η).",
        ),
        io.Int.Input(
            "entropy_off",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="η falls to 0 until this step; 0 keeps it.",
        ),
        io.Int.Input(
            "later_block",
            default=0,
            min=0,
            max=1000,
            tooltip="For sra: the block that is aligned to; 0: two thirds of the depth.",
        ),
        io.Combo.Input(
            "times",
            options=list(TIMES),
            default=TIMES[0],
            tooltip="How noise levels are drawn.",
        ),
        io.Float.Input(
            "empty_prompts",
            default=0.1,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Share of captions left out, for classifier-free guidance.",
        ),
        io.Int.Input(
            "accumulate", default=1, min=1, max=1024, tooltip="Batches summed for each step."
        ),
        io.Float.Input(
            "ema", default=0.99, min=0.0, max=0.99999, step=0.001, tooltip="The LoRA is an average."
        ),
        io.Int.Input(
            "warm_up", default=20, min=0, max=100_000, tooltip="Steps of rising learning rate."
        ),
        io.Int.Input(
            "save_every",
            default=100,
            min=1,
            max=100_000,
            tooltip="Steps between two states on disk; Cancel keeps one too.",
        ),
        io.Boolean.Input(
            "gradient_checkpointing",
            default=True,
            tooltip="Computes blocks twice and needs far less memory.",
        ),
    ]
