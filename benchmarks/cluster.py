"""What a cluster's workers draw beside processes that know nothing of each other.

    python -m comfyui_calibri.benchmarks.cluster

The demo model draws batches of 16 images at 4 steps, in one thread each: W independent processes,
which are the baseline, and W workers of a Ray cluster on this machine, fed by one driver, in turns.
Prints one JSON line for each W with the efficiency: the independent processes' time over the
cluster's, each for the same batches; and what a batch costs beside its drawing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from typing import Any

import numpy as np

from ..calibri.cluster import ClusterEvaluator
from ..calibri.cluster_room import Needs
from ..calibri.coefficients import coefficient_space
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.evaluation import Batch, Evaluator, Sample
from ..calibri.ray_connection import connect
from ..demo.prompts import generate_prompts

ROWS, STEPS = 16, 4
LEAST = 0.9  # efficiency that two workers must reach
PROMPTS = tuple(generate_prompts(16, 1, "train"))
BUCKET = tuple(Sample(number, 1000 + number) for number in range(len(PROMPTS)))


def worker() -> tuple[Evaluator, str]:
    """What a worker draws with; all draw with the same."""
    return demo_evaluator()[0], "demo"


def demo_evaluator() -> tuple[Evaluator, EnsembleSpace]:
    """The demo model in one thread, warm, and its space."""
    import torch

    torch.set_num_threads(1)
    from ..demo.evaluator import DemoEvaluator
    from ..demo.pictures import DemoModels

    models = DemoModels.load()
    space = ensemble_space(coefficient_space(models.backbone, "gate"))
    evaluator = DemoEvaluator(models, space, PROMPTS, STEPS)
    evaluator.run(_batches(1)[0], _vectors(space, 1), BUCKET)
    return evaluator, space


def main() -> None:
    """Measure and print; ends with 1 where two workers are less efficient than LEAST."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=24, help="for each worker")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    connect(None, max(options.workers))
    efficiencies = {}
    for workers in options.workers:
        found = _measure(workers, options.batches, options.pairs)
        efficiencies[workers] = found["efficiency"]
        print(json.dumps(found), flush=True)
    sys.exit(efficiencies.get(2, 1.0) < LEAST)


def _measure(workers: int, batches: int, pairs: int) -> dict[str, Any]:
    """Independent processes and the cluster in turns, first warm."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(workers + 1), context.Queue()
    alone = [
        context.Process(target=_independent, args=(barrier, answers, batches, pairs), daemon=True)
        for _ in range(workers)
    ]
    for process in alone:
        process.start()
    _, space = demo_evaluator()
    cluster = ClusterEvaluator(worker, Needs(), workers)
    while len(cluster.places) < workers:
        _draw(cluster, space, 1, 0)  # workers come in while something is drawn
    apart, together, busy = [], [], []
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            if which:
                drawn = cluster.busy_seconds
                together.append(_draw(cluster, space, workers * batches, pair + 1))
                busy.append(cluster.busy_seconds - drawn)
            else:
                barrier.wait()
                apart.append(max(answers.get() for _ in alone))
    cluster.close()
    for process in alone:
        process.join()
    ratios = [one / other for one, other in zip(apart, together, strict=True)]
    waits = [1 - used / (workers * wall) for used, wall in zip(busy, together, strict=True)]
    return {
        "benchmark": "cluster",
        "workers": workers,
        "batches": workers * batches,
        "rows": ROWS,
        "independent_s": round(statistics.median(apart), 2),
        "cluster_s": round(statistics.median(together), 2),
        "efficiency": round(statistics.median(ratios), 3),
        "efficiencies": [round(ratio, 3) for ratio in ratios],
        "idle_share": round(statistics.median(waits), 3),
        "pairs": pairs,
    }


def _independent(barrier: Any, answers: Any, batches: int, rounds: int) -> None:
    """One process of the baseline: the seconds of each round."""
    evaluator, space = demo_evaluator()
    vectors = _vectors(space, batches)
    for _ in range(rounds):
        barrier.wait()
        began = time.perf_counter()
        for batch in _batches(batches):
            evaluator.run(batch, vectors, BUCKET)
        answers.put(time.perf_counter() - began)


def _draw(cluster: ClusterEvaluator, space: EnsembleSpace, batches: int, seed: int) -> float:
    """Seconds in which the cluster draws so many batches, as a session would have them."""
    pending, vectors = _batches(batches), _vectors(space, batches, seed)
    began = time.perf_counter()
    while pending:
        done, _ = cluster.answer(pending, vectors, BUCKET, "")
        pending.remove(done)
    return time.perf_counter() - began


def _batches(count: int) -> list[Batch]:
    """Each of one candidate, on every sample."""
    return [tuple((number, position) for position in range(ROWS)) for number in range(count)]


def _vectors(space: EnsembleSpace, count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, len(space.names)))
    return space.identity + 0.05 * noise


if __name__ == "__main__":
    main()
