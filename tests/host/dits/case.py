"""What the tests of the backbone map need to know of a DiT: how to make it and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

SAMPLES = 3
ALL = slice(None)


@dataclass(frozen=True)
class DitCase:
    """One real diffusion model class in one shape.

    `call` is one denoising call on three fixed samples, or on those in `rows`: [rows, ...]. The
    inputs have the model's dtype, the samples differ in everything, timesteps included.
    """

    name: str  # as its users call it: "FLUX.2 [klein]"
    family: str  # of its entry
    make: Callable[[], nn.Module]  # tiny, with random weights; ImportError where ComfyUI lacks it
    call: Callable[[nn.Module, slice], Tensor]
    # Published model -> the same class at full size on the meta device, to count coefficients.
    sizes: Mapping[str, Callable[[], nn.Module]] = field(default_factory=dict)
    # Published models that share a line of `sizes` in all that matters here.
    also: tuple[str, ...] = ()
    # Why samples of one call cannot have gains of their own, where that is so.
    one_gain_for_all: str = ""
    # Kinds of blocks that this call has no use for, as it has no references for example.
    idle: tuple[str, ...] = ()
    # For the judge of additions. Modules below a block whose output is its stream from there on:
    restarts: tuple[str, ...] = ()
    # whether a block's additions count of which only its next branch reads the sum.
    inner_additions: bool = False
    # and whether the model adds branches between its blocks too.
    additions_between_blocks: bool = False
    note: str = ""  # for the table in docs/backbones.md
