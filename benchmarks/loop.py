"""Where a calibration's time goes: the share outside model, decoder and reward.

    python -m comfyui_calibri.benchmarks.loop

Runs generations of the demo's search through ComfyUI's sampler and the journal, with a clock around
each call of the model, the VAE and the reward. The baseline is their sum; `outside` is the rest of
the wall time: ComfyUI's sampling machinery, noise, conditioning, taps, journal and search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..calibri.calibration import RunConfig, calibrate
from ..calibri.ensemble_space import ensemble_space
from ..calibri.journal import Journal
from ..demo.prompts import generate_prompts
from ..experiments.host import DemoPipeline, load_demo


class Clock:
    """Seconds spent inside named functions."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed


def _clocked(demo: DemoPipeline, clock: Clock) -> None:
    """Put the clock around the diffusion model's forward, the VAE's decode and the reward's score.

    The forward of the DiT itself, so that the taps' own work inside it is counted as the model's
    only where it happens there (benchmarks/overhead.py measures it).
    """
    module = demo.model.model.diffusion_model
    module.forward = clock.around("model", module.forward)
    demo.vae.decode = clock.around("decoder", demo.vae.decode)
    demo.reward.score = clock.around("reward", demo.reward.score)  # type: ignore[method-assign]


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    demo, clock = load_demo(), Clock()

    from ..nodes.sampling import SamplerSettings

    prompts = generate_prompts(80, 0, "train")
    config = RunConfig(
        prompts=tuple(prompts[:64]),
        validation_prompts=tuple(prompts[64:]),
        reward=demo.reward.name,
        generations=options.generations,
    )
    settings = SamplerSettings("euler", "simple", options.steps, options.cfg, None, 64, 64, "")
    evaluator = demo.evaluator(settings, config.all_prompts)
    evaluator.images(demo.space().identity[None], config.validation_samples()[:4])  # warm up
    _clocked(demo, clock)
    images = 0

    def count(done: int, total: int) -> None:
        nonlocal images
        images = done

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder) / "journal.sqlite")
        with journal:
            started = time.perf_counter()
            calibrate(config, ensemble_space(demo.space()), evaluator, journal, on_batch=count)
            wall = time.perf_counter() - started
    inside = sum(clock.seconds.values())
    print(
        json.dumps(
            {
                "benchmark": "calibration loop",
                "steps": options.steps,
                "cfg": options.cfg,
                "threads": options.threads,
                "images": images,
                "images_per_second": round(images / wall, 1),
                "outside": round(1 - inside / wall, 4),
                **{name: round(spent / wall, 4) for name, spent in sorted(clock.seconds.items())},
            }
        )
    )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
