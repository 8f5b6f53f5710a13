"""A small calibration run whose rewards are exact functions of vectors and noise seeds."""

from pathlib import Path

import numpy as np

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.calibration import RunConfig, calibrate
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.evaluation import BatchTooLargeError
from comfyui_calibri.calibri.journal import Journal

COEFFICIENTS = coefficient_space(
    Backbone(
        "flux",
        {"double": 2, "single": 3},
        tuple(
            Tap("double", i, branch, stream, "", 0, 1)
            for i in range(2)
            for branch in ("attention", "mlp")
            for stream in ("image", "text")
        )
        + tuple(Tap("single", i, "fused", "joint", "", 0, 1) for i in range(3)),
    ),
    "gate",
)
SPACE = ensemble_space(COEFFICIENTS)
CONFIG = RunConfig(
    prompts=tuple(f"a {n}" for n in range(7)),
    validation_prompts=("x", "y", "z"),
    reward="test",
    generations=3,
    seed=11,
    bucket_size=3,
    validate_every=2,
    sampling={"steps": 4},
)


class Interrupted(Exception):
    """Stands for whatever a host raises in the middle of a run."""


class ExactEvaluator:
    """Rewards that depend on the vector and the seed; stops at the batch number `stop_at`."""

    def __init__(self, batch: int = 13, stop_at: int | None = None, memory: int = 10**9):
        self.batch, self.stop_at, self.memory = batch, stop_at, memory
        self.batches: list[int] = []

    def plan(self, candidates, bucket):
        pairs = [(c, p) for p in range(len(bucket)) for c in range(candidates)]
        return [tuple(pairs[i : i + self.batch]) for i in range(0, len(pairs), self.batch)]

    def run(self, batch, vectors, bucket):
        if len(batch) > self.memory:
            raise BatchTooLargeError(f"{len(batch)} images do not fit")
        if len(self.batches) == self.stop_at:
            raise Interrupted
        self.batches.append(len(batch))
        # Like a device: the batch's size shows in the last bits.
        return np.array([self.reward(vectors[c], bucket[p]) for c, p in batch]) * (
            1 + len(batch) * 1e-15
        )

    def reward(self, vector, sample):
        optimum = 1.2 + 0.1 * np.sin(np.arange(len(vector)))
        noise = np.random.default_rng(sample.seed).standard_normal(len(vector))
        return -((vector - optimum) ** 2).sum() + 0.1 * noise @ vector + 0.3 * sample.prompt

    def images(self, vectors, bucket):
        raise NotImplementedError


def rows(path: Path) -> list:
    """All that must be equal after a resume: vectors, samples, rewards of every evaluation."""
    with Journal.read(path) as journal:
        return [
            (e.role, e.generation, e.vectors.tobytes(), e.bucket, e.rewards.tobytes())
            for e in journal.evaluations()
        ]


def run(path: Path, evaluator=None, config: RunConfig = CONFIG, **callbacks):
    with Journal.open(path) as journal:
        return calibrate(config, SPACE, evaluator or ExactEvaluator(), journal, **callbacks)


def same(first, second) -> bool:
    return (
        (first.vector == second.vector).all()
        and (first.generation, first.before, first.after, first.gain)
        == (second.generation, second.before, second.after, second.gain)
        and [(f.generation, f.validation, f.selection) for f in first.finalists]
        == [(f.generation, f.validation, f.selection) for f in second.finalists]
    )
