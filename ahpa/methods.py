"""AHPA, its baselines and its ablations: what a block is aligned to, and by which router.

One name each; everything else in a training is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..training.state import TrainingError
from .levels import Level
from .router import (
    ContentRouter,
    DynamicRouter,
    FixedRouter,
    HandSetRouter,
    LookupRouter,
    ReversedRouter,
    SinusoidalTime,
    StaticRouter,
    frozen,
)

NOTHING, LEVELS, DEEPEST, LATENTS, ITSELF, VISION = (
    "nothing",
    "levels",
    "deepest",
    "latents",
    "itself",
    "vision",
)


@dataclass(frozen=True)
class Method:
    """What sets one apart from the others."""

    target: str
    said: str
    # From the levels, the width of the block's tokens and a router that was trained before.
    router: Callable[[Sequence[Level], int, nn.Module | None], nn.Module]
    needs_router: bool = False
    ablation: bool = False


def _one(_levels: Sequence[Level], _hidden: int, _trained: nn.Module | None) -> nn.Module:
    return FixedRouter(torch.ones(1))


def _trained(router: nn.Module | None) -> nn.Module:
    assert router is not None  # `router_of` has looked
    return router


METHODS: Mapping[str, Method] = {
    "ahpa": Method(
        LEVELS, "levels of the VAE, weighed by the noise level", lambda ls, h, t: DynamicRouter(ls)
    ),
    "none": Method(NOTHING, "no alignment", _one),
    "latents": Method(LATENTS, "the VAE's latents (as in SRA 2)", _one),
    "deepest": Method(DEEPEST, "the VAE's deepest level", _one),
    "uniform": Method(
        LEVELS, "all levels alike", lambda ls, h, t: FixedRouter(torch.ones(len(ls)))
    ),
    "static": Method(LEVELS, "one learned mix for all times", lambda ls, h, t: StaticRouter(ls)),
    "by hand": Method(
        LEVELS, "deep at high noise, middle at low, by hand", lambda ls, h, t: HandSetRouter(ls)
    ),
    "reversed": Method(
        LEVELS,
        "a trained router with time turned round",
        lambda ls, h, t: ReversedRouter(_trained(t)),
        needs_router=True,
    ),
    "frozen": Method(
        LEVELS,
        "a router trained before, fixed",
        lambda ls, h, t: frozen(_trained(t)),
        needs_router=True,
    ),
    "sra": Method(ITSELF, "its own later block at lower noise (as in SRA)", _one),
    "repa": Method(VISION, "an image encoder's tokens (as in REPA)", _one),
    "sinusoidal": Method(
        LEVELS,
        "AHPA with sines and cosines of t",
        lambda ls, h, t: DynamicRouter(ls, SinusoidalTime()),
        ablation=True,
    ),
    "content": Method(
        LEVELS,
        "AHPA with a router that sees the tokens",
        lambda ls, h, t: ContentRouter(ls, h),
        ablation=True,
    ),
    "lookup": Method(
        LEVELS, "AHPA with a table of 10 bins", lambda ls, h, t: LookupRouter(ls), ablation=True
    ),
    "depth 3": Method(
        LEVELS, "AHPA, MLP of 3 layers", lambda ls, h, t: DynamicRouter(ls, depth=3), ablation=True
    ),
    "depth 8": Method(
        LEVELS, "AHPA, MLP of 8 layers", lambda ls, h, t: DynamicRouter(ls, depth=8), ablation=True
    ),
}


def method_of(name: str) -> Method:
    """Raises TrainingError for a name there is not."""
    if name not in METHODS:
        raise TrainingError(f"There is no method {name!r}: choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def used_levels(name: str, levels: Sequence[Level]) -> tuple[Level, ...]:
    """Those of the chosen levels that a method reads."""
    target = method_of(name).target
    if target == LEVELS:
        return tuple(levels)
    return (levels[-1],) if target == DEEPEST else ()


def router_of(
    name: str, levels: Sequence[Level], hidden: int, trained: nn.Module | None = None
) -> nn.Module:
    """The method's router, new, or around the one that was trained before.

    Raises TrainingError where one is needed and missing, or was trained on other levels.
    """
    method = method_of(name)
    if method.needs_router:
        if trained is None:
            raise TrainingError(
                f"The method {name!r} needs a router that was trained before: connect one of a run "
                "with the method ahpa."
            )
        with torch.no_grad():
            found = trained(torch.zeros(1), torch.zeros(1, 1, hidden)).shape[-1]
        if found != len(levels):
            raise TrainingError(
                f"The router was trained on {found} levels and {len(levels)} are chosen: choose "
                "the levels that it was trained on."
            )
    return method.router(levels, hidden, trained)
