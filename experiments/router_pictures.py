"""What AHPA Router shows of the example workflow's training, and the workflow's thumbnail.

    python -m comfyui_calibri.experiments.router_pictures

The workflow's LoRA is trained in ComfyUI twice, with AHPA and without (`none`), on 64 of the demo's
pictures with inverted colours. Router and features are drawn, and linear probes say how much of
each level can be read from the aligned block of the plain model and of both LoRAs, on 64 other such
pictures: docs/images/ahpa_inspection.png, docs/ahpa-inspection.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .host import DemoPipeline, load_demo
from .workflow_thumbnails import CALIBRATED, CAPTION, PAPER, PLAIN, SIDE, WORKFLOWS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE, NUMBERS = DOCS / "images" / "ahpa_inspection.png", DOCS / "ahpa-inspection.json"
THUMBNAIL = WORKFLOWS / "Calibri - train a LoRA with AHPA.jpg"
PROMPT = "a red circle left of a yellow star on a white background"
# What the workflow sets; the rest is the node's.
SETTINGS = {
    "size": 64,
    "steps": 150,
    "batch": 16,
    "learning_rate": 2e-3,
    "filename_prefix": "router-pictures",
    "run_name": "router-pictures",
    "ema": 0.95,
    "warm_up": 10,
    "gradient_checkpointing": False,
}
PICTURES, LEVELS = 64, 10
METHODS = ("ahpa", "none")


def main() -> None:
    """Train, look, draw."""
    demo = load_demo()
    with torch.inference_mode():
        seen, unseen = _inverted(1), _inverted(2)
        trained = {method: _train(demo, method, *seen) for method in METHODS}
        models = {"plain": demo.model, **{name: one[0] for name, one in trained.items()}}
        router = trained["ahpa"][-1]
        looks = {name: _look(demo, router, model, *unseen) for name, model in models.items()}
        pictures = {name: _draw(demo, models[name]) for name in ("plain", "ahpa")}
    shown = [_bytes(image) for image in looks["ahpa"][:-1]]
    found = {name: json.loads(numbers) for name, (*_, numbers) in looks.items()}
    _stacked(shown).save(PICTURE, optimize=True)
    _thumbnail(pictures, shown[0], shown[1]).save(THUMBNAIL, quality=88)
    told = {
        "settings": {**SETTINGS, "pictures": PICTURES, "probed": PICTURES},
        "router": {k: v for k, v in found["ahpa"].items() if k not in ("features", "alignment")},
        "features": found["ahpa"]["features"],
        "alignment": {name: one["alignment"] for name, one in found.items()},
    }
    NUMBERS.write_text(json.dumps(told) + "\n", encoding="utf-8")
    for name, one in found.items():
        table = np.array(list(one["alignment"]["cosine"].values()))
        print(f"{name:6}", " ".join(f"{value:.3f}" for value in table.mean(axis=0)))


def _inverted(seed: int) -> tuple[list[torch.Tensor], list[str]]:
    from ..nodes.demo_pictures import CalibriDemoPictures

    images, captions = CalibriDemoPictures.execute(PICTURES, seed).result
    return [1 - image for image in images], captions


def _train(
    demo: DemoPipeline, method: str, images: list[torch.Tensor], captions: list[str]
) -> tuple[Any, ...]:
    from ..nodes.train_ahpa import CalibriTrainAHPA
    from ..nodes.train_ahpa_inputs import training_inputs

    widgets = {one.id: getattr(one, "default", None) for one in training_inputs()}
    values = {name: value for name, value in widgets.items() if value is not None}
    values |= {**SETTINGS, "method": method}
    values |= {"model": demo.model, "clip": demo.clip, "vae": demo.vae}
    given = {name: [value] for name, value in values.items()}
    found: tuple[Any, ...] = CalibriTrainAHPA.execute(
        images=images, captions=captions, **given
    ).result
    return found


def _look(
    demo: DemoPipeline, router: Any, model: Any, images: list[torch.Tensor], captions: list[str]
) -> tuple[Any, ...]:
    from ..nodes.inspect_ahpa import CalibriAHPARouter

    found: tuple[Any, ...] = CalibriAHPARouter.execute(
        router=[router],
        size=[SETTINGS["size"]],
        pictures=[PICTURES],
        noise_levels=[LEVELS],
        images=images,
        captions=captions,
        vae=[demo.vae],
        model=[model],
        clip=[demo.clip],
    ).result
    return found


def _draw(demo: DemoPipeline, model: Any) -> list[Image.Image]:
    """The workflow's four pictures."""
    import comfy.sample

    from ..nodes.conditioning import encode

    conditions = [encode(demo.clip, text, None) for text in (PROMPT, "")]
    latent = torch.zeros(4, 16, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 7)
    drawn = comfy.sample.sample(
        model, noise, 6, 1.0, "euler", "simple", *conditions, latent, disable_pbar=True, seed=7
    )
    return [Image.fromarray(_bytes(picture[None])) for picture in demo.vae.decode(drawn)]


def _stacked(pictures: list[NDArray[np.uint8]]) -> Image.Image:
    """One below the other, all as wide as the first."""
    width = pictures[0].shape[1]
    shown = [Image.fromarray(picture) for picture in pictures]
    shown = [one.resize((width, one.height * width // one.width)) for one in shown]
    whole = Image.new(
        "RGB", (width, sum(one.height for one in shown) + 20 * (len(shown) - 1)), PAPER
    )
    top = 0
    for one in shown:
        whole.paste(one, (0, top))
        top += one.height + 20
    return whole


def _thumbnail(
    pictures: dict[str, list[Image.Image]],
    router_plot: NDArray[np.uint8],
    features: NDArray[np.uint8],
) -> Image.Image:
    """Plain and trained pictures of equal noise above the router's plot and the features."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen, font = ImageDraw.Draw(thumbnail), ImageFont.load_default(size=20)
    cell, half = SIDE // 4, SIDE // 2
    for left, name, title, colour in (
        (0, "plain", "plain", PLAIN),
        (half, "ahpa", "with the LoRA", CALIBRATED),
    ):
        pen.rectangle((left, 0, left + half - 1, CAPTION - 1), fill=colour)
        pen.text((left + half // 2, CAPTION // 2), title, PAPER, font=font, anchor="mm")
        for number, picture in enumerate(pictures[name]):
            row, column = divmod(number, 2)
            shown = picture.resize((cell - 2, cell - 2), Image.Resampling.NEAREST)
            thumbnail.paste(shown, (left + column * cell, CAPTION + row * cell))
    top = CAPTION + 2 * cell
    height = SIDE - top
    plot = Image.fromarray(router_plot)
    plot = plot.resize((plot.width * height // plot.height, height), Image.Resampling.LANCZOS)
    thumbnail.paste(plot, (0, top))
    # The features' names would be too small to read: their pictures alone.
    across = Image.fromarray(features)
    across = across.crop((across.width - across.height * 3 // 4, 0, across.width, across.height))
    across = across.resize((height * 3 // 4, height), Image.Resampling.LANCZOS)
    thumbnail.paste(across, (SIDE - across.width, top))
    return thumbnail


def _bytes(image: torch.Tensor) -> NDArray[np.uint8]:
    """[1, H, W, 3] in 0…1 → [H, W, 3]."""
    found: NDArray[np.uint8] = (image[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return found


if __name__ == "__main__":
    main()
