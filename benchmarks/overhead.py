"""Calibrated against plain sampling on the demo model, in one process.

    python -m comfyui_calibri.benchmarks.overhead

Plain and calibrated runs of ComfyUI's sampler alternate, so that a machine that slows down slows
both. Prints one JSON line per batch size: the ratio of the median times (1.0 is free).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from ..experiments.host import load_demo

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
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for repeat in range(options.repeats + 2):
            for name, model in models.items():
                started = time.perf_counter()
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
                if repeat >= 2:  # the first two load and warm up
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        ratio = medians["calibrated"] / medians["plain"]
        print(
            json.dumps(
                {
                    "benchmark": "calibrated / plain",
                    "batch": batch,
                    "steps": options.steps,
                    "cfg": options.cfg,
                    "threads": options.threads,
                    "ratio": round(ratio, 4),
                    "plain_ms": round(1000 * medians["plain"], 2),
                    "calibrated_ms": round(1000 * medians["calibrated"], 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
