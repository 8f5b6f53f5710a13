"""The QRM that ships with the demo: the ablation's first seed, with what was measured of it.

    python -m comfyui_calibri.experiments.qrm_demo_file

The seed was chosen before any of the ablation's was trained, after a pilot that no table shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ..calibri.presets import fingerprint
from ..calibri.selection import mean_interval
from ..demo.pictures import DemoModels
from ..demo.weights import DIT, WEIGHTS
from ..qrm.config import QRMConfig
from ..qrm.files import QRMFile, save_qrm
from ..qrm.module import QRM
from .qrm_ablation import SEEDS, results
from .qrm_rows import RECIPE, REFERENCE

FILE = WEIGHTS / "qrm" / "calibri-demo-qrm.safetensors"


def main() -> None:
    """Write the file, in the place of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".run/qrm-ablation"))
    options = parser.parse_args()
    seed, found = SEEDS[0], results(options.folder)
    (own,) = (one for one in found if (one["row"], one["seed"]) == (REFERENCE, seed))
    (plain,) = (one for one in found if one["row"] == "plain")
    models = DemoModels.load()
    module = QRM(QRMConfig.for_backbone(models.dit, 64, 64))
    module.load_state_dict(torch.load(options.folder / "modules" / f"seed-{seed}.pt"))
    effect = {
        measure: {
            "plain": round(float(np.mean(plain["scores"][measure])), 4),
            "change": {
                name: round(value, 4)
                for name, value in vars(
                    mean_interval(np.subtract(own["scores"][measure], plain["scores"][measure]))
                ).items()
            },
        }
        for measure in own["scores"]
    }
    record = {
        "recipe": {**RECIPE.record(), "seed": seed},
        "best_step": own["best_step"],
        "held_out_prompts": len(plain["scores"]["reward"]),
        "sampling": {"sampler": "euler", "scheduler": "simple", "steps": 4, "cfg": 1.0},
        "effect": effect,
    }
    base = Path(DIT).name
    FILE.parent.mkdir(exist_ok=True)
    FILE.unlink(missing_ok=True)
    save_qrm(
        FILE,
        QRMFile(
            module.eval().requires_grad_(False),
            title=f"{base}: demo reward",
            base_model=base,
            fingerprint=fingerprint(models.dit),
            licence="Apache-2.0",
            training=record,
        ),
    )
    print(FILE, FILE.stat().st_size, effect)


if __name__ == "__main__":
    main()
