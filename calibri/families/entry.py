"""What an entry for a model family says: how to recognise it, and where its branches are scaled.

An entry is data. `calibri/backbones.py` reads a model with it; docs/backbones.md says how to write
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# How the samples of a call lie along the batch axis of a tapped tensor that has more rows than
# there are samples.
TILED = "tiled"  # a b c a b c: all samples, then all again (at another timestep, for example)
INTERLEAVED = "interleaved"  # a a b b c c: the frames or tokens of one sample side by side
PACKED = "packed"  # rows that cannot be told apart by sample: all samples of a call share gains


@dataclass(frozen=True)
class Modulation:
    """An adaLN linear of a block, and which chunks of its output are gates.

    The cheapest tap, a few numbers per sample. It is right only where the gate multiplies the
    branch as it is: nothing may lie between the chunk and the product, or else a tanh alone.
    """

    module: str  # path below the block
    stream: str  # "image", "text", or "joint" for both in one sequence
    # Number of chunks -> (chunk, branch) of each gate. The linear's width says which layout it has;
    # a width without a layout means that the model is of another family.
    layouts: Mapping[int, tuple[tuple[int, str], ...]]
    # A chunk is as wide as the linear's input; or else as the output of this module, a path below
    # the block.
    width_of: str = ""
    rows: str = TILED
    # The chunks come again and again along the output, as for each pixel of a patch. `layouts` then
    # has one entry.
    repeats: bool = False
    # The block takes the tanh of each gate. The linear lies directly in the block, its output is
    # [B, channels].
    tanh: bool = False
    # Number of chunks -> (chunk, branch, "shift" or "scale") of each chunk that modulates a
    # branch's norm: x · (1 + scale) + shift. Empty where nobody has looked.
    norms: Mapping[int, tuple[tuple[int, str, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """A branch that is scaled at the output of its last module, a tensor [..., channels].

    For families whose gates are made elsewhere or pass through a function (tanh), and for branches
    without a gate. The last module is the one after which only products follow: behind a norm, if
    the branch ends with one.
    """

    module: str  # path below the block
    branch: str  # "attention", "cross_attention", "mlp", "fused"...
    stream: str
    optional: bool = False  # some blocks lack it
    axis: int = 0  # of the output, the one along which the samples lie
    rows: str = TILED


@dataclass(frozen=True)
class BlockKind:
    """The blocks in one container: an `nn.ModuleList`, or another module of nothing but blocks."""

    name: str  # as coefficients are named after it: "double", "single", "joint"
    container: str  # path below the diffusion model
    branches: tuple[Modulation | Output, ...]  # in the order in which coefficients are listed
    optional: bool = False  # a model of the family may have no such blocks
    # Streams whose branches in the last block of this kind nothing reads any more: scaling them
    # would do nothing, so they are no coefficients.
    unread_in_last: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A model family: how to recognise it and where its branches are."""

    name: str  # presets carry it: it never changes
    classes: tuple[str, ...]  # a class of this name is the model's, or a base of it
    kinds: tuple[BlockKind, ...]
    needs: tuple[str, ...] = ()  # modules that its look-alikes lack
    lacks: tuple[str, ...] = ()  # modules that its look-alikes have
    # Lists of the model in which a call keeps what later calls need not compute again. They do not
    # know of gains: calls with gains begin with empty ones and leave the others' as they were.
    caches: tuple[str, ...] = ()


GATES_OF_SIX = ((2, "attention"), (5, "mlp"))  # shift, scale, gate, shift, scale, gate
GATES_OF_NINE = (*GATES_OF_SIX, (8, "attention2"))  # and shift, scale, gate
NORMS_OF_TWO = ((0, "attention", "shift"), (1, "attention", "scale"))
NORMS_OF_SIX = (*NORMS_OF_TWO, (3, "mlp", "shift"), (4, "mlp", "scale"))
NORMS_OF_NINE = (*NORMS_OF_SIX, (6, "attention2", "shift"), (7, "attention2", "scale"))
