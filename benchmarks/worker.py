"""What a score costs by being computed in another process: images there, numbers back.

    python -m comfyui_calibri.benchmarks.worker

A scorer that does next to nothing scores 16 images of 512 x 512 in a worker process, and, which is
the baseline, in this one: both begin with ComfyUI's floats in 0..1 and see bytes. Prints one JSON
line: medians of both, their difference, which is the round trip, and the ratio with its interval.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from ..rewards.declarations import WorkerDeclaration
from ..rewards.external_reward import ExternalReward, external_reward
from .paired import Ratio, paired_ratio

SCORER = """
class Corner:
    def score(self, images, prompts):
        return images[:, 0, 0, 0] / 255.0
"""
BUDGET_MS = 25.0


def main() -> None:
    """Measure and print; ends with 1 where a round trip takes longer than its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ratio = _measure(Path(folder), options.images, options.side, options.pairs)
    trip = ratio.other_ms - ratio.plain_ms
    print(
        json.dumps(
            {
                "benchmark": "worker",
                "images": options.images,
                "side": options.side,
                "in_process_ms": round(ratio.plain_ms, 2),
                "worker_ms": round(ratio.other_ms, 2),
                "round_trip_ms": round(trip, 2),
                "ratio": [round(x, 2) for x in (ratio.median, ratio.low, ratio.high)],
                "pairs": ratio.pairs,
            }
        )
    )
    sys.exit(trip > BUDGET_MS)


def _measure(folder: Path, count: int, side: int, pairs: int) -> Ratio:
    declared = WorkerDeclaration(
        kind="worker", entry="corner.py:Corner", python="current", licence="", batch=count
    )
    (folder / "corner.py").write_text(SCORER)
    there = external_reward("corner", declared, folder, lambda *_: None)
    here = ExternalReward("corner here", declared, _corner)
    images, prompts = torch.rand(count, side, side, 3), ["a picture"] * count
    assert torch.allclose(there.score(images, prompts), here.score(images, prompts))
    # Wall time, since two processes take part.
    return paired_ratio(
        lambda: here.score(images, prompts), lambda: there.score(images, prompts), pairs
    )


def _corner(pixels: np.ndarray, prompts: object) -> list[float]:
    return [float(value) for value in pixels[:, 0, 0, 0] / 255.0]


if __name__ == "__main__":
    main()
