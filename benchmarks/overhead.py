"""Whole sampling runs of the demo model, calibrated against plain, in one process.

    python -m comfyui_calibri.benchmarks.overhead

Everything that ComfyUI does in a run is in the times; `scaling.py` compares single model calls.
Prints one JSON line per batch size: the ratio (1.0 is free) as `paired.py` measures it.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..experiments.host import load_demo
from .paired import cpu_clock, paired_ratio

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

BATCHES = (1, 8, 32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    demo = load_demo()

    import comfy.sample

    from ..nodes.conditioning import encode
    from ..nodes.patching import GainLayer, apply_gains

    gains = torch.rand(1, len(demo.space().tap_index)) * 0.5 + 0.75
    models = {"plain": demo.model, "calibrated": apply_gains(demo.model, GainLayer(gains))}
    positive = encode(demo.clip, "a small red circle left of a blue square", None)
    negative = encode(demo.clip, "", None)
    for batch in BATCHES:
        latent = torch.zeros(batch, 16, 8, 8)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))

        def sample(model: ModelPatcher, noise: torch.Tensor, latent: torch.Tensor) -> None:
            comfy.sample.sample(
                model,
                noise,
                options.steps,
                options.cfg,
                "euler",
                "simple",
                positive,
                negative,
                latent,
                disable_pbar=True,
                seed=0,
            )

        ratio = paired_ratio(
            partial(sample, models["plain"], noise, latent),
            partial(sample, models["calibrated"], noise, latent),
            options.repeats,
            clock=cpu_clock(),
        )
        print(
            json.dumps(
                {
                    "benchmark": "calibrated / plain",
                    "batch": batch,
                    "steps": options.steps,
                    "cfg": options.cfg,
                    "threads": options.threads,
                    "ratio": round(ratio.median, 4),
                    "interval": [round(ratio.low, 4), round(ratio.high, 4)],
                    "plain_ms": round(ratio.plain_ms, 2),
                    "calibrated_ms": round(ratio.other_ms, 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
