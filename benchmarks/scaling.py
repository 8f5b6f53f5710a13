"""What a preset costs: a calibrated model call against a plain one, pair by pair in one process.

    python -m comfyui_calibri.benchmarks.scaling [--json] [--device cuda]

ComfyUI's own classes with random weights, called as its samplers call them: through `apply_model`
and the wrapper that Apply Calibri adds. Prints a Markdown table, or a JSON line for each row: the
ratio of the times, the memory that a calibrated call takes beyond a plain one at its peak, and how
often it waits for the device where a plain one does not. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..experiments.host import start_comfyui
from .footprint import peak_bytes, synchronisations, values_read
from .paired import cpu_clock, paired_ratio

if TYPE_CHECKING:
    from .random_models import Shape

SWITCH_TARGET_MS = 0.2


@dataclass(frozen=True)
class Case:
    """A model, how it is calibrated, and the ratio that is wanted."""

    name: str
    shape: Shape
    target: float | None
    pairs: int
    rows: bool = False  # gains of its own for each row of the batch, as in a search
    range: bool = False  # start and end percent: the preset acts in part of sampling
    dtype: torch.dtype = torch.float32
    control: bool = False  # plain against plain: what the machine's noise does to a ratio


def cpu_cases() -> list[Case]:
    """Small enough for a CPU: one where arithmetic takes the time, one where calls do."""
    from .random_models import flux, wan

    compute = flux(4, 8, heads=6, head=64, side=32, text=64)
    blocks = flux(19, 38, heads=2, head=32, side=8, text=8)
    return [
        Case("FLUX, 4+8 blocks, hidden 384, plain again", compute, None, 60, control=True),
        Case("FLUX, 4+8 blocks, hidden 384", compute, 1.01, 60),
        Case("FLUX, 4+8 blocks, hidden 384, bf16", compute, 1.01, 20, dtype=torch.bfloat16),
        Case(
            "Wan, 12 blocks, hidden 384 (whole outputs)",
            wan(12, heads=6, head=64, ffn=1536, frames=5, side=16, text=64),
            1.01,
            40,
        ),
        Case("FLUX, 19+38 tiny blocks", blocks, 1.08, 200),
        Case("FLUX, 19+38 tiny blocks, in part of sampling", blocks, 1.08, 200, range=True),
        Case(
            "FLUX, 19+38 tiny blocks, 4 candidates in a batch",
            dataclasses.replace(blocks, batch=4),
            1.08,
            200,
            rows=True,
        ),
    ]


def cuda_cases() -> list[Case]:
    """At the published models' real sizes, in their usual precision."""
    from .random_models import flux, wan

    dev = flux(19, 38, heads=24, head=128, side=128, text=512)
    tiny = flux(19, 38, heads=2, head=32, side=8, text=8)
    video = wan(30, heads=12, head=128, ffn=8960, frames=5, side=60, text=512)
    half = torch.bfloat16
    return [
        Case("FLUX.1-dev, plain again", dev, None, 20, dtype=half, control=True),
        Case("FLUX.1-dev, 1024 x 1024", dev, 1.01, 20, dtype=half),
        Case("FLUX.1-dev, in part of sampling", dev, 1.01, 20, range=True, dtype=half),
        Case("Wan 2.1 1.3B, 17 frames of 480 x 480 (whole outputs)", video, 1.01, 20, dtype=half),
        Case("FLUX, 19+38 tiny blocks", tiny, 1.08, 200, dtype=half),
    ]


def measure(case: Case, device: torch.device) -> dict[str, Any]:
    """One row of the table."""
    from ..nodes.gain_layer import GainLayer
    from ..nodes.patching import apply_gains, backbone_of
    from .random_models import make_inputs, make_model

    model = make_model(case.shape, device, case.dtype)
    taps = len(backbone_of(model).taps)
    gains = torch.rand(case.shape.batch if case.rows else 1, taps) + 0.5
    window = {"start_percent": 0.05, "end_percent": 0.95} if case.range else {}
    calibrated = apply_gains(model, GainLayer(gains, **window))
    inputs = make_inputs(case.shape, device)

    def call(patcher: Any) -> Callable[[], object]:
        options = {"cond_or_uncond": [0], "wrappers": patcher.wrappers}
        return lambda: model.model.apply_model(**inputs, transformer_options=options)

    plain, other = call(model), call(model if case.control else calibrated)
    if device.type == "cuda":
        ratio = paired_ratio(plain, other, case.pairs, torch.cuda.synchronize)
        waits = synchronisations
    else:
        ratio = paired_ratio(plain, other, case.pairs, clock=cpu_clock())
        waits = values_read
    return {
        "case": case.name,
        "taps": taps,
        "target": case.target,
        "ratio": round(ratio.median, 4),
        "interval": [round(ratio.low, 4), round(ratio.high, 4)],
        "plain_ms": round(ratio.plain_ms, 3),
        "calibrated_ms": round(ratio.other_ms, 3),
        "pairs": ratio.pairs,
        "plain_peak_bytes": peak_bytes(plain, device),
        "more_peak_bytes": peak_bytes(other, device) - peak_bytes(plain, device),
        "more_waits": waits(other) - waits(plain),
    }


def measure_switching(device: torch.device, repeats: int = 300) -> dict[str, Any]:
    """Milliseconds from a vector of FLUX.1's 57 coefficients to 114 taps ready for the next call.

    Everything but the model's own call: expanding the vector, the new gains, their way to the
    device, and entering and leaving the taps.
    """
    from ..calibri.coefficients import coefficient_space
    from ..calibri.taps import GainTaps
    from ..nodes.gain_layer import GainLayer
    from ..nodes.patching import backbone_of, diffusion_model
    from .random_models import flux, make_model

    shape = flux(19, 38, heads=2, head=32, side=8, text=8)
    model = make_model(shape, device, torch.float32)
    backbone = backbone_of(model)
    space, taps = coefficient_space(backbone, "block"), GainTaps(diffusion_model(model), backbone)
    layer = GainLayer(torch.ones(1, len(backbone.taps)))
    vectors = space.identity + 0.1 * torch.randn(repeats, len(space.names)).double().numpy()
    milliseconds = []
    for k in range(repeats):
        started = time.perf_counter()
        layer.replace(torch.as_tensor(space.expand(vectors[k : k + 1]), dtype=torch.float32))
        with taps.scaled(layer.gains_at(device)[:, 0]):
            pass
        if device.type == "cuda":
            torch.cuda.synchronize()
        milliseconds.append(1000.0 * (time.perf_counter() - started))
    quartiles = statistics.quantiles(milliseconds, n=4)
    return {
        "case": "switching candidates, 57 coefficients to 114 taps",
        "target_ms": SWITCH_TARGET_MS,
        "ms": round(quartiles[1], 3),
        "interval_ms": [round(quartiles[0], 3), round(quartiles[2], 3)],  # quartiles
    }


def rows(device: torch.device) -> Iterator[dict[str, Any]]:
    """The measurements, one after the other; a model is gone before the next one is made."""
    for case in cuda_cases() if device.type == "cuda" else cpu_cases():
        yield measure(case, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    yield measure_switching(device)


def as_markdown(row: dict[str, Any]) -> str:
    """A line of the table."""
    if "ms" in row:
        low, high = row["interval_ms"]
        return (
            f"| {row['case']} | {row['ms']:.3f} ms [{low:.3f}, {high:.3f}] "
            f"| ≤ {row['target_ms']} ms | | | |"
        )
    low, high = row["interval"]
    target = "" if row["target"] is None else f"≤ {row['target']}"
    more, plain = row["more_peak_bytes"] / 2**10, row["plain_peak_bytes"] / 2**20
    memory = f"{more:+.1f} KiB to {plain:.1f} MiB"
    return (
        f"| {row['case']} | {row['ratio']:.3f} [{low:.3f}, {high:.3f}] | {target} "
        f"| {row['plain_ms']:.1f} | {memory} | {row['more_waits']} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here: leave --device away to measure the CPU.")
    torch.set_num_threads(options.threads)
    start_comfyui(cpu=options.device == "cpu")
    if not options.json:
        print("| model | calibrated / plain | target | plain, ms | more memory | more waits |")
        print("|---|---|---|---|---|---|")
    for row in rows(torch.device(options.device)):
        print(json.dumps(row) if options.json else as_markdown(row), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
