"""Choose the demo's checkpoint by its headroom for calibration.

    python -m comfyui_calibri.experiments.demo_checkpoints --steps 1000 1600 2200 --cfg 1

For each checkpoint of `demo/train_dit.py` and each setting: how much steps matter to the plain
model, and what a short search gains, on training-split prompts only. The held-out split is left
for the evidence that is published.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ..calibri.calibration import RunConfig, calibrate
from ..calibri.coefficients import coefficient_space
from ..calibri.ensemble_space import ensemble_space
from ..calibri.journal import Journal
from ..calibri.selection import mean_interval
from ..demo.autoencoder import Autoencoder
from ..demo.evaluator import DemoEvaluator
from ..demo.model import Flux
from ..demo.pictures import DemoModels
from ..demo.prompts import generate_prompts
from ..demo.reward import DemoReward, Detector
from ..demo.text_encoder import TextEncoder
from ..demo.weights import REWARD, VAE, WEIGHTS, load_into
from .demo_judge import judge

_JUDGED = 256
_STEP_COUNTS = (4, 8, 15)
_SEARCHED = 512


def main() -> None:
    """Print one JSON line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-folder", type=Path, default=Path(".run/train"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[], help="checkpoints; none: newest"
    )
    parser.add_argument("--cfg", type=float, nargs="*", default=[1.0, 3.0])
    parser.add_argument("--sampler-steps", type=int, default=4, help="of the search")
    parser.add_argument("--generations", type=int, default=30, help="0: no search")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)

    autoencoder, detector = Autoencoder(), Detector()
    load_into(autoencoder, VAE, options.weights)
    load_into(detector, REWARD, options.weights)
    reward = DemoReward(detector)
    for step in options.steps or [None]:
        dit, text_encoder = _load_training_state(options.train_folder, step)
        models = DemoModels(dit, text_encoder, autoencoder, reward)
        for cfg in options.cfg:

            def evaluator(
                prompts: list[str],
                sampler_steps: int,
                models: DemoModels = models,
                cfg: float = cfg,
            ) -> DemoEvaluator:
                space = ensemble_space(coefficient_space(models.backbone, "gate"))
                return DemoEvaluator(models, space, prompts, sampler_steps, cfg)

            _measure(evaluator, {"step": step, "cfg": cfg}, options)


def _measure(
    evaluator: Callable[[list[str], int], DemoEvaluator],
    labels: dict[str, object],
    options: argparse.Namespace,
) -> None:
    prompts = generate_prompts(_SEARCHED + _JUDGED, 77, "train")
    searched, judged = prompts[:_SEARCHED], prompts[_SEARCHED:]
    plain = {}
    for count in _STEP_COUNTS:
        at = evaluator(judged, count)
        plain[count] = judge(at, at.space.identity, 5)
        means = {key: round(float(v.mean()), 4) for key, v in plain[count].items()}
        print(json.dumps({**labels, "plain": count, **means}), flush=True)
    if not options.generations:
        return
    at = evaluator(searched + judged, options.sampler_steps)
    config = RunConfig(
        prompts=tuple(searched),
        validation_prompts=tuple(judged),
        reward=at.reward.name,
        generations=options.generations,
        seed=options.seed,
        profile=options.profile,
        validate_every=10_000,
    )
    path = Path(tempfile.mkdtemp()) / "journal.sqlite"
    with Journal.open(path) as journal:
        last = calibrate(config, at.space, at, journal).history[-1].vector
    for count in _STEP_COUNTS:
        calibrated = judge(evaluator(judged, count), last, 5)
        gains = {key: mean_interval(calibrated[key] - plain[count][key]) for key in calibrated}
        rows = {
            key: [round(value, 4) for value in (gain.mean, gain.low, gain.high)]
            for key, gain in gains.items()
        }
        print(json.dumps({**labels, "gain": count, **rows}), flush=True)


def _load_training_state(folder: Path, step: int | None) -> tuple[Flux, TextEncoder]:
    """A checkpoint of `demo/train_dit.py`: the averaged weights kept at `step`, or the newest."""
    if step is None:
        state = torch.load(folder / "dit.pt")["average"]
    else:
        state = torch.load(folder / f"dit-{step}.pt")
    dit, text_encoder = Flux(), TextEncoder()
    for name, module in (("dit", dit), ("text_encoder", text_encoder)):
        own = {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")}
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return dit, text_encoder


if __name__ == "__main__":
    main()
