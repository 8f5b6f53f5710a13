"""What held-out pictures of the demo are worth: its reward, and the checker that no search saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..calibri.evaluation import Floats, samples
from ..demo.checker import check
from ..demo.evaluator import DemoEvaluator
from ..demo.prompts import parse
from ..demo.reward import DemoReward


def judge(
    evaluator: DemoEvaluator, vector: Floats, seed: int, images_per_prompt: int = 1
) -> dict[str, Floats]:
    """Per picture of every prompt: reward, and the checker's facts, all_facts and fit."""
    rows = list(range(len(evaluator.prompts))) * images_per_prompt
    bucket = samples(seed, "judge", 0, rows)
    pictures = evaluator.images(vector[None], bucket)[0]
    return measure(evaluator.reward, pictures, [evaluator.prompts[row] for row in rows])


@torch.no_grad()
def measure(
    reward: DemoReward, pictures: NDArray[np.uint8], prompts: Sequence[str]
) -> dict[str, Floats]:
    """Of each picture [P, H, W, 3]: reward, and the checker's facts, all_facts and fit, all [P]."""
    verdicts = [check(p, parse(t)) for p, t in zip(pictures, prompts, strict=True)]
    rewards = reward.score(torch.from_numpy(pictures).float() / 255, prompts)
    return {
        "reward": np.asarray(rewards.double().numpy()),
        "facts": np.array([verdict.facts for verdict in verdicts]),
        "all_facts": np.array([verdict.all_facts for verdict in verdicts]),
        "fit": np.array([verdict.fit for verdict in verdicts]),
    }
