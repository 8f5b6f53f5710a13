"""Search profiles on the demo model, with its real reward's noise.

    python -m comfyui_calibri.experiments.search_profiles search --variant default --seed 1
    python -m comfyui_calibri.experiments.search_profiles report

Every run begins at the plain model and sees the same prompts; `report` joins them into one JSON:
per variant, each seed's validated reward against evaluations, and the evaluations until the gain
over the plain model first reaches GAINS. VARIANTS names what was tried, those that lost included.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..calibri.calibration import GenerationSummary, RunConfig, calibrate
from ..calibri.ensemble_space import ensemble_space
from ..calibri.journal import Journal
from ..calibri.search import AntitheticSearch
from ..demo.prompts import generate_prompts
from .demo_evidence import evaluator_of
from .host import load_demo

# The profile and what of it is changed.
VARIANTS: dict[str, tuple[str, dict[str, float]]] = {
    "paper": ("paper", {}),
    "sigma-0.2": ("default", {"sigma": 0.2, "step_halves_after": 20}),
    "sigma-0.25": ("default", {"sigma": 0.25, "step_halves_after": 40}),
}
SEEDS = (1, 2, 3, 4, 5)
STEPS = 4
GENERATIONS = 20
TRAIN_PROMPTS, VALIDATION_PROMPTS = 512, 96
VALIDATE_EVERY = 2
GAINS = (0.1, 0.2, 0.3)
_PROMPT_SEED = 2


def search(folder: Path, variant: str, seed: int) -> None:
    """One search; its validated rewards go to `folder/<variant>-<seed>.json`."""
    profile, settings = VARIANTS[variant]
    for name, value in settings.items():
        setattr(AntitheticSearch, name, value)
    demo = load_demo()
    config = RunConfig(
        prompts=tuple(generate_prompts(TRAIN_PROMPTS, _PROMPT_SEED, "train")),
        validation_prompts=tuple(generate_prompts(VALIDATION_PROMPTS, _PROMPT_SEED, "test")),
        reward=demo.reward.name,
        generations=GENERATIONS,
        validate_every=VALIDATE_EVERY,
        profile=profile,
        seed=seed,
        sampling={"variant": variant, "steps": STEPS},
    )
    evaluator = evaluator_of(demo, config.all_prompts, STEPS)

    def tell(summary: GenerationSummary) -> None:
        print(f"{variant} {seed} {summary.generation}: {summary.validation}", flush=True)

    name = f"{variant}-{seed}"
    with Journal.open(folder / f"{name}.sqlite") as journal:
        calibrate(config, ensemble_space(demo.space()), evaluator, journal, tell)
        evaluations, curve = 0, []
        validated = {e.generation: e for e in journal.evaluations("validation")}
        for generation in range(GENERATIONS + 1):
            if generation:
                found = journal.evaluation("generation", generation)
                assert found is not None
                evaluations += len(found.vectors)
            if generation in validated:
                curve.append([evaluations, float(validated[generation].rewards[0].mean())])
    (folder / f"{name}.json").write_text(json.dumps(curve))


def report(folder: Path) -> dict[str, Any]:
    """What the runs there are show; medians over seeds, None where half do not get there."""
    variants = {}
    for variant in VARIANTS:
        curves = {
            seed: np.array(json.loads(path.read_text()))
            for seed in SEEDS
            if (path := folder / f"{variant}-{seed}.json").is_file()
        }
        if not curves:
            continue
        gains = {seed: curve[:, 1] - curve[0, 1] for seed, curve in curves.items()}
        needed = {
            str(gain): [
                int(curves[seed][np.argmax(reached), 0])
                if (reached := gains[seed] >= gain).any()
                else None
                for seed in curves
            ]
            for gain in GAINS
        }
        variants[variant] = {
            "settings": VARIANTS[variant][1],
            "seeds": list(curves),
            "evaluations": curves[next(iter(curves))][:, 0].tolist(),
            "gains": [np.round(gain, 4).tolist() for gain in gains.values()],
            "evaluations_to_gain": needed,
            "final_gain": round(float(np.mean([gain[-1] for gain in gains.values()])), 4),
        }
    return {
        "bucket": 16,
        "steps": STEPS,
        "validation_prompts": VALIDATION_PROMPTS,
        "variants": variants,
    }


def main() -> None:
    """One search per call, so that they can run side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("search", "report"))
    parser.add_argument("--variant", choices=VARIANTS, default="sigma-0.25")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".run/search-profiles"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.stage == "report":
        print(json.dumps(report(options.folder), indent=1))
        return
    import torch

    torch.set_num_threads(1)
    with torch.inference_mode():
        search(options.folder, options.variant, options.seed)


if __name__ == "__main__":
    main()
