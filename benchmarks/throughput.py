"""Images per second of a calibration against raw sampling, and where its time goes.

    python -m comfyui_calibri.benchmarks.throughput

Raw is what nobody can do without: ComfyUI's sampler on the plain model, the VAE and the reward, at
the batch size that is fastest. It takes turns with whole generations of the demo's search, journal
and all (`paired.py`), so that another process slows both. Then a clock around each call of the
model, the VAE and the reward says what of the search's time is spent outside of them.
Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..calibri.configuration import RunConfig
from ..calibri.ensemble_space import ensemble_space
from ..calibri.journal import Journal
from ..calibri.session import Session
from ..demo.prompts import generate_prompts
from ..experiments.host import DemoPipeline, load_demo
from .paired import WARM_UP, cpu_clock, paired_ratio

SIZES = (1, 4, 8, 16, 32, 64)  # images at once
REPEATS = 5  # of each size
SEARCHED, HELD_OUT = 64, 16  # prompts
# So that both take turns every few seconds. A run has 16, and four times the images to spread
# what a generation costs besides.
BUCKET = 4
NEVER = 10**6  # generations


class Raw:
    """Draws and scores images of the plain model as a workflow of stock nodes would."""

    def __init__(self, demo: DemoPipeline, prompts: tuple[str, ...], steps: int, cfg: float):
        from ..nodes.conditioning import encode

        self._demo, self._prompts = demo, prompts
        self._steps, self._cfg = steps, cfg
        self._encoded = [encode(demo.clip, text, None) for text in prompts]
        self._negative = encode(demo.clip, "", None)
        self._seed = 0

    def draw(self, images: int) -> None:
        """One batch."""
        import comfy.sample

        from ..nodes.conditioning import stack
        from ..nodes.decoding import decode

        self._seed += 1
        rows = [(self._seed + row) % len(self._prompts) for row in range(images)]
        latent = torch.zeros(images, 16, 8, 8)
        latents = comfy.sample.sample(
            self._demo.model,
            comfy.sample.prepare_noise(latent, self._seed),
            self._steps,
            self._cfg,
            "euler",
            "simple",
            stack([self._encoded[row] for row in rows], self._demo.model.load_device),
            self._negative,
            latent,
            disable_pbar=True,
            seed=self._seed,
        )
        pictures = decode(self._demo.vae, latents)
        self._demo.reward.score(pictures, [self._prompts[row] for row in rows])


class Search:
    """The demo's search, a generation at a time."""

    def __init__(self, demo: DemoPipeline, prompts: tuple[str, ...], steps: int, cfg: float):
        from ..nodes.sampling import SamplerSettings

        config = RunConfig(
            prompts=prompts[:SEARCHED],
            validation_prompts=prompts[SEARCHED:],
            reward=demo.reward.name,
            generations=NEVER,
            bucket_size=BUCKET,
            validate_every=NEVER,
        )
        settings = SamplerSettings("euler", "simple", steps, cfg, None, 64, 64, "")
        self._folder = tempfile.TemporaryDirectory()
        self._session = Session(
            config,
            ensemble_space(demo.space()),
            demo.evaluator(settings, config.all_prompts),
            Journal.open(Path(self._folder.name) / "journal.sqlite"),
        )
        while self._session.generation == 0:
            self._session.advance()

    def generation(self) -> int:
        """Finish the generation that runs; its images."""
        before, number = self._session.images, self._session.generation
        while self._session.generation == number:
            self._session.advance()
        return self._session.images - before


class Clock:
    """Seconds spent inside named functions."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.seconds: Counter[str] = Counter()
        self._now = now

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += self._now() - started

        return timed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    demo, now = load_demo(), cpu_clock()
    told = {"steps": options.steps, "cfg": options.cfg, "threads": options.threads}
    prompts = tuple(generate_prompts(SEARCHED + HELD_OUT, 0, "train"))
    raw = Raw(demo, prompts[:SEARCHED], options.steps, options.cfg)
    speeds = {size: _speed(raw, size, now) for size in SIZES}
    best = max(speeds, key=lambda size: speeds[size])
    rounded = {str(size): round(speed, 1) for size, speed in speeds.items()}
    _print("raw images per second", told, batches=rounded, best=best)

    search = Search(demo, prompts, options.steps, options.cfg)
    images = search.generation()

    def draw_as_many() -> None:
        for _ in range(images // best):
            raw.draw(best)

    assert images % best == 0
    ratio = paired_ratio(draw_as_many, search.generation, options.pairs, clock=now)
    _print(
        "calibration / raw",
        told,
        ratio=round(ratio.median, 4),
        interval=[round(ratio.low, 4), round(ratio.high, 4)],
        raw_images_per_second=round(1000 * images / ratio.plain_ms, 1),
        images_per_second=round(1000 * images / ratio.other_ms, 1),
    )

    clock = _clocked(demo, now)
    started = now()
    for _ in range(WARM_UP):
        search.generation()
    spent = now() - started
    shares = {name: round(seconds / spent, 4) for name, seconds in clock.seconds.items()}
    _print("time of a generation", told, **shares, outside=round(1 - sum(shares.values()), 4))


def _speed(raw: Raw, size: int, now: Callable[[], float]) -> float:
    """Images per second, median of REPEATS after a batch to warm up."""
    raw.draw(size)
    seconds = []
    for _ in range(REPEATS):
        started = now()
        raw.draw(size)
        seconds.append(now() - started)
    return size / median(seconds)


def _clocked(demo: DemoPipeline, now: Callable[[], float]) -> Clock:
    """Put a clock around the diffusion model's forward, the VAE's decode and the reward's score.

    The forward of the DiT itself, so that the taps' own work inside it is counted as the model's
    (benchmarks/overhead.py measures it).
    """
    clock, module = Clock(now), demo.model.model.diffusion_model
    module.forward = clock.around("model", module.forward)
    demo.vae.decode = clock.around("decoder", demo.vae.decode)
    demo.reward.score = clock.around("reward", demo.reward.score)  # type: ignore[method-assign]
    return clock


def _print(benchmark: str, told: dict[str, Any], **numbers: Any) -> None:
    print(json.dumps({"benchmark": benchmark, **told, **numbers}), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
