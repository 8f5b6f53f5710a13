"""The thumbnail of the QRM's workflow: its prompt drawn plain, with the demo's QRM, and with the
preset besides, from equal noise.

    python -m comfyui_calibri.experiments.qrm_thumbnail
"""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont

from ..calibri.evaluation import Sample
from ..demo.pictures import DemoModels, to_bytes
from ..demo.trainee import DemoTrainee
from ..qrm.files import load_qrm
from ..qrm.measuring import draw
from .qrm_ablation import preset_gains
from .qrm_demo_file import FILE
from .workflow_thumbnails import CALIBRATED, CAPTION, PAPER, PLAIN, SIDE, WORKFLOWS

THUMBNAIL = WORKFLOWS / "Calibri - quality modulation (QRM).jpg"
PROMPT = "a small red circle left of a large blue square on a white background"
ROWS = 4


@torch.no_grad()
def main() -> None:
    """Draw it."""
    models = DemoModels.load()
    module = load_qrm(FILE).module
    plain = DemoTrainee(models, [PROMPT])
    both = DemoTrainee(models, [PROMPT], gains=preset_gains(models))
    bucket = [Sample(0, seed) for seed in range(1, ROWS + 1)]
    cell = (SIDE - CAPTION) // ROWS
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen, font = ImageDraw.Draw(thumbnail), ImageFont.load_default(size=18)
    for column, (title, host, acting) in enumerate(
        (("plain", plain, None), ("QRM", plain, module), ("and preset", both, module))
    ):
        left = column * (SIDE // 3) + (SIDE // 3 - cell) // 2
        colour = PLAIN if acting is None else CALIBRATED
        pen.text((left + cell / 2, CAPTION / 2), title, colour, font=font, anchor="mm")
        pictures, _ = draw(host, acting, models.reward.score, bucket, ROWS)
        for row, picture in enumerate(to_bytes(pictures).numpy()):
            shown = Image.fromarray(picture).resize((cell - 2, cell - 2), Image.Resampling.NEAREST)
            thumbnail.paste(shown, (left, CAPTION + row * cell))
    thumbnail.save(THUMBNAIL, quality=90)


if __name__ == "__main__":
    main()
