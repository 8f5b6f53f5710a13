"""The demo's evidence: several whole searches, judged on held-out prompts by the checker.

    python -m comfyui_calibri.experiments.demo_evidence search --seed 1
    python -m comfyui_calibri.experiments.demo_evidence judge --seed 1
    python -m comfyui_calibri.experiments.demo_evidence report

`search` is what the Calibrate node does with the demo's workflow, through ComfyUI's own sampler.
`judge` draws the held-out prompts plain and calibrated over numbers of steps. `report` joins all
seeds into one table (JSON) and one figure. Every seed of SEEDS is reported, whatever it shows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibri.calibration import RunConfig, calibrate
from ..calibri.ensemble_space import ensemble_space
from ..calibri.evaluation import samples
from ..calibri.journal import Journal
from ..calibri.selection import mean_interval
from ..demo.prompts import generate_prompts
from .demo_judge import measure
from .host import DemoPipeline, load_demo

if TYPE_CHECKING:
    from ..nodes.sampling import ComfyEvaluator

SEEDS = (1, 2, 3, 4, 5)
JUDGED = 256
STEP_COUNTS = (2, 3, 4, 6, 10, 15, 30)
SEARCH_STEPS = 4
CFG = 1.0
GENERATIONS = 30
TRAIN_PROMPTS = 512
VALIDATION_PROMPTS = 256
VALIDATE_EVERY = 15
_PROMPT_SEED = 1
JUDGE_SEED = 20_26
MEASURES = ("reward", "facts", "all_facts", "fit")


def evaluator_of(demo: DemoPipeline, prompts: tuple[str, ...], steps: int) -> ComfyEvaluator:
    """The demo's setting at a number of steps."""
    from ..nodes.sampling import SamplerSettings

    settings = SamplerSettings("euler", "simple", steps, CFG, None, 64, 64, "")
    return demo.evaluator(settings, prompts)


def validation_prompts() -> tuple[str, ...]:
    """What picks among a search's finalists, as in the example workflow."""
    return tuple(generate_prompts(VALIDATION_PROMPTS, _PROMPT_SEED, "test"))


def judged_prompts() -> tuple[str, ...]:
    """Held out from training, searching and selecting alike."""
    chosen = set(validation_prompts())
    drawn = generate_prompts(JUDGED + VALIDATION_PROMPTS, 0, "test")
    return tuple(prompt for prompt in drawn if prompt not in chosen)[:JUDGED]


def search(folder: Path, seed: int) -> None:
    """One whole search; its journal and answer go to `folder/seed-N`."""
    demo = load_demo()
    from ..nodes.identity import identity

    config = RunConfig(
        prompts=tuple(generate_prompts(TRAIN_PROMPTS, _PROMPT_SEED, "train")),
        validation_prompts=validation_prompts(),
        reward=demo.reward.name,
        generations=GENERATIONS,
        validate_every=VALIDATE_EVERY,
        seed=seed,
        # So that a journal of other weights or settings is refused, not continued.
        sampling={
            "steps": SEARCH_STEPS,
            "cfg": CFG,
            **{name: identity(patcher) for name, patcher in demo.patchers().items()},
        },
    )
    evaluator = evaluator_of(demo, config.all_prompts, SEARCH_STEPS)
    run = folder / f"seed-{seed}"
    run.mkdir(parents=True, exist_ok=True)

    def tell(summary: Any) -> None:
        print(
            f"seed {seed} generation {summary.generation}: {summary.mean:.4f} "
            f"validation {summary.validation} ({summary.seconds:.1f} s)",
            flush=True,
        )

    with Journal.open(run / "journal.sqlite") as journal:
        outcome = calibrate(config, ensemble_space(demo.space()), evaluator, journal, tell)
    answer = {
        "seed": seed,
        "generation": outcome.generation,
        "coefficients": demo.space().named(outcome.vector),
        "confirmed_gain": vars(outcome.gain),
        "seconds": sum(summary.seconds for summary in outcome.history),
    }
    (run / "answer.json").write_text(json.dumps(answer, indent=1))


def judge(folder: Path, seed: int | None) -> None:
    """Judge the answer of a seed, or the plain model (None), on the held-out prompts."""
    prompts = judged_prompts()
    demo = load_demo()
    space, vector = demo.space(), demo.space().identity
    target = folder / "plain.json"
    if seed is not None:
        run = folder / f"seed-{seed}"
        vector = space.vector(json.loads((run / "answer.json").read_text())["coefficients"])
        target = run / "judged.json"
    bucket = samples(JUDGE_SEED, "judge", 0, range(JUDGED))
    curve: dict[str, dict[str, list[float]]] = {}
    for steps in STEP_COUNTS:
        pictures = evaluator_of(demo, prompts, steps).images(vector[None], bucket)[0]
        measured = measure(demo.reward, pictures, prompts)
        curve[str(steps)] = {name: values.tolist() for name, values in measured.items()}
        means = {
            name: round(float(np.mean(values)), 4) for name, values in curve[str(steps)].items()
        }
        print(f"{target.stem} {seed} {steps} steps: {means}", flush=True)
    target.write_text(json.dumps(curve))


def report(folder: Path) -> None:
    """Join the judged seeds into `folder/evidence.json` and `folder/evidence.png`."""
    plain = json.loads((folder / "plain.json").read_text())
    seeds: list[dict[str, Any]] = []
    for seed in SEEDS:
        run = folder / f"seed-{seed}"
        judged = json.loads((run / "judged.json").read_text())
        gains = {
            steps: {
                name: vars(mean_interval(np.subtract(judged[steps][name], plain[steps][name])))
                for name in MEASURES
            }
            for steps in judged
        }
        answer = json.loads((run / "answer.json").read_text())
        seeds.append({"seed": seed, "answer": answer, "gains": gains, "means": _means(judged)})
    evidence = {
        "prompts": JUDGED,
        "search_steps": SEARCH_STEPS,
        "cfg": CFG,
        "generations": GENERATIONS,
        "plain": _means(plain),
        "seeds": seeds,
    }
    (folder / "evidence.json").write_text(json.dumps(evidence, indent=1))
    _draw(evidence, folder / "evidence.png")


def _means(curve: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        steps: {name: float(np.mean(values)) for name, values in measured.items()}
        for steps, measured in curve.items()
    }


def _draw(evidence: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    titles = {
        "reward": "reward (searched)",
        "facts": "checker: facts shown (judge)",
        "all_facts": "checker: every fact right (judge)",
        "fit": "checker: fit of the shapes (judge)",
    }
    for axes, name in zip(figure.subplots(1, 4), MEASURES, strict=True):
        for run in evidence["seeds"]:
            means = [run["means"][str(steps)][name] for steps in STEP_COUNTS]
            axes.plot(STEP_COUNTS, means, color="#d9731f", alpha=0.6, linewidth=1.2)
        plain = [evidence["plain"][str(steps)][name] for steps in STEP_COUNTS]
        axes.plot(STEP_COUNTS, plain, color="#33415c", linewidth=2.2)
        axes.plot([], [], color="#d9731f", label="calibrated, one line a seed")
        axes.plot([], [], color="#33415c", linewidth=2.2, label="plain")
        axes.axvline(evidence["search_steps"], color="#bbbbbb", linewidth=1, linestyle=":")
        axes.set(title=titles[name], xlabel="steps", xscale="log")
        axes.set_xticks(STEP_COUNTS, [str(steps) for steps in STEP_COUNTS])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """One stage per call, so that seeds can run side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("search", "judge", "report"))
    parser.add_argument("--seed", type=int, help="of the search; judge without it: the plain model")
    parser.add_argument("--folder", type=Path, default=Path(".run/evidence"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        if options.stage == "search":
            search(options.folder, options.seed)
        elif options.stage == "judge":
            judge(options.folder, options.seed)
        else:
            report(options.folder)


if __name__ == "__main__":
    main()
