"""What an ensemble of M members costs: its prediction against the plain model's, pair by pair.

    python -m comfyui_calibri.benchmarks.ensemble [--json] [--device cuda]

One prediction of `comfy.samplers.calc_cond_batch` on FLUX's class with random weights, plain and
with a preset of M members: in one batch, and in turn as where another node looks at the batch by
position. M is what M predictions cost. The memory at its peak is relative to a plain prediction's
with M times the batch.
Prints a Markdown table, or a JSON line for each row. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..experiments.host import start_comfyui
from .footprint import peak_bytes
from .paired import paired_ratio

if TYPE_CHECKING:
    from .random_models import Shape


@dataclass(frozen=True)
class Case:
    """A model, the number of members, and the ratio that is wanted."""

    name: str
    shape: Shape
    members: int
    target: float | None
    pairs: int
    dtype: torch.dtype = torch.float32


def cpu_cases() -> Iterator[Case]:
    """One where arithmetic takes the time, one where calls do."""
    from .random_models import flux

    compute = flux(4, 8, heads=6, head=64, side=32, text=64)
    for members in (2, 3):
        yield Case("FLUX, 4+8 blocks, hidden 384", compute, members, float(members), 20)
    for side in (8, 4):
        blocks = flux(19, 38, heads=2, head=32, side=side, text=side)
        name = f"FLUX, 19+38 tiny blocks, {side * side // 4 + side} tokens"
        for members in (2, 3):
            yield Case(name, blocks, members, 1.3, 100)


def cuda_cases() -> Iterator[Case]:
    """FLUX.1-dev's real size at batch 1."""
    from .random_models import flux

    for side in (64, 128):
        dev = flux(19, 38, heads=24, head=128, side=side, text=512)
        name = f"FLUX.1-dev, {8 * side} x {8 * side}"
        for members in (2, 3):
            yield Case(name, dev, members, float(members), 20, torch.bfloat16)


def measure(case: Case, device: torch.device) -> Iterator[dict[str, Any]]:
    """Two rows of the table: in one batch, in turn."""
    from ..nodes.gain_layer import GainLayer
    from ..nodes.patching import apply_gains, backbone_of
    from .random_models import make_model

    model = make_model(case.shape, device, case.dtype)
    gains = torch.rand(1, case.members, len(backbone_of(model).taps)) + 0.5
    weights = torch.full((1, case.members), 1.0 / case.members)
    ensemble = apply_gains(model, GainLayer(gains, weights=weights))
    watched = ensemble.clone()
    # What keeps members from sharing a batch: somebody who may look at positions.
    watched.set_model_patch(lambda *args: args[0], "calibri_benchmark")

    finish, clock = (lambda: None), time.perf_counter
    if device.type == "cuda":
        finish = torch.cuda.synchronize
    elif torch.get_num_threads() == 1:
        clock = time.thread_time  # its own time leaves out what other processes take
    plain = predict(model, case.shape, device)
    as_large = dataclasses.replace(case.shape, batch=case.members * case.shape.batch)
    larger = predict(model, as_large, device)
    batch = paired_ratio(plain, larger, case.pairs, finish, clock=clock)
    plain_peak = peak_bytes(larger, device)
    for way, patcher in (("one batch", ensemble), ("in turn", watched)):
        call = predict(patcher, case.shape, device)
        ratio = paired_ratio(plain, call, case.pairs, finish, clock=clock)
        yield {
            "case": case.name,
            "members": case.members,
            "way": way,
            "target": case.target if way == "one batch" else None,
            "ratio": round(ratio.median, 4),
            "interval": [round(ratio.low, 4), round(ratio.high, 4)],
            "batch_ratio": round(batch.median, 4),  # the plain model at M times the batch
            "plain_ms": round(ratio.plain_ms, 3),
            "ensemble_ms": round(ratio.other_ms, 3),
            "pairs": ratio.pairs,
            "memory": round(peak_bytes(call, device) / plain_peak, 4),
        }


def predict(model: Any, shape: Shape, device: torch.device) -> Callable[[], object]:
    """One prediction as ComfyUI's samplers ask for it."""
    import comfy.conds
    import comfy.samplers

    from .random_models import make_inputs

    inputs = make_inputs(shape, device)
    x, t, text = (inputs.pop(name) for name in ("x", "t", "c_crossattn"))
    conditions = {name: comfy.conds.CONDRegular(value) for name, value in inputs.items()}
    conditions["c_crossattn"] = comfy.conds.CONDCrossAttn(text)
    positive = [{"model_conds": conditions, "uuid": uuid.uuid4()}]
    options = dict(model.model_options)
    options["transformer_options"] = {
        **options.get("transformer_options", {}),
        "wrappers": model.wrappers,
        "sample_sigmas": torch.linspace(1.0, 0.0, 5),
    }

    def call() -> object:
        model.model.current_patcher = model
        return comfy.samplers.calc_cond_batch(model.model, [positive], x, t, options)

    return call


def as_markdown(row: dict[str, Any]) -> str:
    """A line of the table."""
    low, high = row["interval"]
    target = "" if row["target"] is None else f"≤ {row['target']:g}"
    return (
        f"| {row['case']} | {row['members']} | {row['way']} "
        f"| {row['ratio']:.3f} [{low:.3f}, {high:.3f}] | {target} | {row['batch_ratio']:.3f} "
        f"| {row['plain_ms']:.1f} | {row['memory']:.3f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start_comfyui(cpu=options.device == "cpu")
    device = torch.device(options.device)
    if not options.json:
        print(
            "| model | M | members | ensemble / plain | target | batch of M | plain, ms | memory |"
        )
        print("|---|---|---|---|---|---|---|---|")
    for case in cuda_cases() if device.type == "cuda" else cpu_cases():
        for row in measure(case, device):
            print(json.dumps(row) if options.json else as_markdown(row), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
