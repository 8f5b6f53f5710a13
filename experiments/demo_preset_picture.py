"""The small picture in the preset that ships, as Calibrate puts one into each that it finds.

    python -m comfyui_calibri.experiments.demo_preset_picture

The first prompts that `demo_evidence.py` judges on, not chosen ones, at the preset's own steps.
"""

from __future__ import annotations

from dataclasses import replace

from ..calibri.coefficients import coefficient_space
from ..calibri.ensemble_space import ensemble_space
from ..calibri.evaluation import samples
from ..calibri.presets import check_preset, load_preset, save_preset
from ..calibri.thumbnail import draw_thumbnail
from ..demo.evaluator import DemoEvaluator
from ..demo.pictures import DemoModels
from .demo_card_pictures import PRESET
from .demo_evidence import JUDGE_SEED, judged_prompts

PICTURED = 3


def main() -> None:
    """Draw the pictures and write the file anew; its numbers stay."""
    models, preset = DemoModels.load(), load_preset(PRESET)
    space = ensemble_space(coefficient_space(models.backbone, preset.granularity))
    _, (calibrated,) = check_preset(preset, models.backbone)
    settings = preset.sampling
    evaluator = DemoEvaluator(
        models, space, judged_prompts()[:PICTURED], int(settings["steps"]), float(settings["cfg"])
    )
    bucket = samples(JUDGE_SEED, "judge", 0, range(PICTURED))
    rows = [evaluator.images(vector[None], bucket)[0] for vector in (space.identity, calibrated)]
    save_preset(PRESET, replace(preset, thumbnail=draw_thumbnail(*rows)), overwrite=True)
    print(f"{PRESET}: {PRESET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
