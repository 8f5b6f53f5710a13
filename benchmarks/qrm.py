"""What a QRM costs: a model call with one against a plain one, pair by pair, and in arithmetic.

    python -m comfyui_calibri.benchmarks.qrm [--json] [--device cuda] [--only flops|time]

Times are of ComfyUI's own classes with random weights and QRMs of the size that they get, called as
ComfyUI's samplers call them. On a CPU there is also the time inside QRM's own code, which is steady
where a ratio of two times drowns in what else the machine does. Arithmetic is counted at the
published models' real sizes, on the meta device, where nothing is computed. Results are in
docs/performance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..experiments.host import start_comfyui
from .paired import cpu_clock, paired_ratio

if TYPE_CHECKING:
    from ..nodes.qrm_layer import QRMLayer
    from .random_models import Shape

STEP_TARGET, REUSE_TARGET = 1.02, 1.01
SIGMAS = (0.9, 0.8, 0.7)  # of a schedule's two steps


@dataclass(frozen=True)
class Case:
    """A model and how many pairs of its two steps are measured."""

    name: str
    shape: Shape
    pairs: int
    dtype: torch.dtype = torch.float32
    target: bool = True  # whether it has to keep the targets


def cpu_cases() -> list[Case]:
    """In the proportions of the published models, small enough for a CPU."""
    from .random_models import flux, sd3

    return [
        Case("SD3.5-M's proportions, 6 blocks, hidden 384", sd3(6, 3, side=32, text=64), 40),
        Case("FLUX's proportions, 4+8 blocks, hidden 384", flux(4, 8, 6, 64, side=32, text=64), 40),
        Case("the demo's shape", flux(3, 8, 1, 128, side=8, text=24, width=64), 200, target=False),
    ]


def cuda_cases() -> list[Case]:
    """At real sizes, in their usual precision."""
    from .random_models import flux, sd3

    half = torch.bfloat16
    return [
        Case("SD3.5-M, 512 x 512", sd3(24, 13, side=64, text=154), 30, half),
        Case("SD3.5-M, 1024 x 1024", sd3(24, 13, side=128, text=154), 20, half),
        Case("FLUX.1-dev, 1024 x 1024", flux(19, 38, 24, 128, side=128, text=512), 10, half),
    ]


def counted_cases() -> list[Case]:
    """What is counted, not run."""
    from .random_models import flux, sd3

    return [
        Case("SD3.5-M, 512 x 512, cfg", dataclasses.replace(sd3(24, 13, 64, 154), batch=2), 0),
        Case("SD3.5-M, 1024 x 1024, cfg", dataclasses.replace(sd3(24, 13, 128, 154), batch=2), 0),
        Case("FLUX.1-dev, 512 x 512", flux(19, 38, 24, 128, side=64, text=512), 0),
        Case("FLUX.1-dev, 1024 x 1024", flux(19, 38, 24, 128, side=128, text=512), 0),
    ]


def measure(case: Case, device: torch.device) -> Iterator[dict[str, Any]]:
    """Rows of the table: plain against plain, with a QRM, with one that is asked every 2nd step."""
    from ..nodes.patching import apply_qrm
    from ..nodes.qrm_layer import QRMLayer
    from .random_models import make_inputs, make_model

    model = make_model(case.shape, device, case.dtype)
    module = make_qrm(model.model.diffusion_model, case.shape).to(device)
    inputs = make_inputs(case.shape, device)
    schedule = torch.tensor(SIGMAS, device=device)

    def steps(patcher: Any, layer: QRMLayer | None = None) -> Callable[[], object]:
        options = {
            "cond_or_uncond": [0],
            "uuids": [uuid.uuid4()],
            "sample_sigmas": schedule,
            "wrappers": patcher.wrappers,
        }

        def two() -> None:
            if layer is not None:
                layer.forget()  # as each sampling does
            for sigma in schedule[:2]:
                t = sigma.expand(case.shape.batch)
                model.model.apply_model(**{**inputs, "t": t}, transformer_options=options)

        return two

    def asked_each(reuse: int) -> Callable[[], object]:
        layer = QRMLayer(module, reuse=reuse)
        return steps(apply_qrm(model, layer), layer)

    plain = steps(model)
    others = {
        "plain again": (plain, None),
        "every step": (asked_each(1), STEP_TARGET),
        "every 2nd step": (asked_each(2), REUSE_TARGET),
    }
    for asked, (other, target) in others.items():
        own = None
        if device.type == "cuda":
            ratio = paired_ratio(plain, other, case.pairs, torch.cuda.synchronize)
        else:
            ratio = paired_ratio(plain, other, case.pairs, clock=cpu_clock())
            own = own_share(other, case.pairs, cpu_clock())
        yield {
            "case": case.name,
            "asked": asked,
            "parameters": share(module, model.model.diffusion_model),
            "ratio": round(ratio.median, 4),
            "interval": [round(ratio.low, 4), round(ratio.high, 4)],
            "own": None if own is None else round(own, 5),
            "target": target if case.target else None,
            "plain_ms": round(ratio.plain_ms / 2, 3),
            "pairs": ratio.pairs,
        }


def own_share(function: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    """The time of a run in QRM's own code, of the rest: the module, the taps, the sums at them.

    The median over `runs`; 0 for plain runs.
    """
    shares = []
    for _ in range(runs):
        with own_time(clock) as spent:
            began = clock()
            function()
            whole = clock() - began
        shares.append(sum(spent) / (whole - sum(spent)))
    return float(np.median(shares))


@contextmanager
def own_time(clock: Callable[[], float]) -> Iterator[list[float]]:
    """Within it, the list gets the seconds of each piece of QRM's own code that runs."""
    from ..calibri import tapped_module
    from ..calibri.taps import GainTaps
    from ..nodes.qrm_layer import QRMLayer

    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(clock() - began)

        return run

    scaled = GainTaps.scaled

    @contextmanager
    def entered(*args: Any, **kwargs: Any) -> Iterator[None]:
        inside = scaled(*args, **kwargs)
        timed(inside.__enter__)()
        try:
            yield
        finally:
            timed(inside.__exit__)(None, None, None)

    with (
        patch.object(QRMLayer, "vectors", timed(QRMLayer.vectors)),
        patch.object(tapped_module, "_sum", timed(tapped_module._sum)),
        patch.object(GainTaps, "scaled", entered),
    ):
        yield spent


def count(case: Case) -> dict[str, Any]:
    """The multiplications of matrices in one step, with and without a QRM."""
    from comfy.ldm.modules.attention import attention_pytorch

    from .random_models import on_meta

    model, inputs = on_meta(case.shape)
    with torch.device("meta"):
        module = make_qrm(model, case.shape)
    x, t, context = inputs.pop("x"), inputs.pop("t"), inputs.pop("c_crossattn")
    prompt = (context, None, inputs["y"])
    # ComfyUI's choice for a CPU asks how much memory the device has.
    options = {
        "optimized_attention_override": lambda _, *args, **kw: attention_pytorch(*args, **kw)
    }
    with FlopCounterMode(display=False) as plain:
        model(x, t, context=context, transformer_options=options, **inputs)
    with FlopCounterMode(display=False) as more:
        module(torch.zeros(case.shape.batch, device="meta"), *prompt)
    ratio = more.get_total_flops() / plain.get_total_flops()
    return {
        "case": case.name,
        "parameters": share(module, model),
        "plain_gflop": round(plain.get_total_flops() / 1e9),
        "qrm_gflop": round(more.get_total_flops() / 1e9, 1),
        "every step": round(1 + ratio, 5),
        "every 2nd step": round(1 + ratio / 2, 5),
    }


def make_qrm(model: torch.nn.Module, shape: Shape) -> Any:
    """A QRM of the size that the model gets, as if it had been trained."""
    from ..qrm.config import QRMConfig
    from ..qrm.module import QRM

    module = QRM(QRMConfig.for_backbone(model, shape.text_width, shape.pooled))
    for name, parameter in module.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval().requires_grad_(False)


def share(module: torch.nn.Module, model: torch.nn.Module) -> float:
    """The module's parameters, of the model's."""
    mine, whole = (sum(p.numel() for p in part.parameters()) for part in (module, model))
    return round(mine / whole, 5)


def as_markdown(row: dict[str, Any]) -> str:
    """A line of one of the two tables."""
    if "plain_gflop" in row:
        return (
            f"| {row['case']} | {100 * row['parameters']:.2f} % | {row['plain_gflop']} "
            f"| {row['qrm_gflop']} | {row['every step']:.4f} | {row['every 2nd step']:.4f} |"
        )
    low, high = row["interval"]
    target = "" if row["target"] is None else f"≤ {row['target']}"
    own = "" if row["own"] is None else f"{100 * row['own']:.2f} %"
    return (
        f"| {row['case']} | {row['asked']} | {row['ratio']:.3f} [{low:.3f}, {high:.3f}] | {own} "
        f"| {target} | {row['plain_ms']:.1f} | {100 * row['parameters']:.2f} % |"
    )


def main() -> None:
    """Count, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("flops", "time"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here: leave --device away to measure the CPU.")
    torch.set_num_threads(options.threads)
    start_comfyui(cpu=options.device == "cpu")
    device = torch.device(options.device)

    def say(row: dict[str, Any]) -> None:
        print(json.dumps(row) if options.json else as_markdown(row), flush=True)

    if options.only != "time":
        if not options.json:
            print("| one step of | QRM's parameters | GFLOP | QRM's GFLOP | each | each 2nd |")
            print("|---|---|---|---|---|---|")
        for case in counted_cases():
            say(count(case))
    if options.only != "flops":
        if not options.json:
            print(
                "\n| model | QRM is asked | with / plain | own | target | plain, ms | parameters |"
            )
            print("|---|---|---|---|---|---|---|")
        for case in cuda_cases() if device.type == "cuda" else cpu_cases():
            for row in measure(case, device):
                say(row)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
