"""Where each residual branch of a Diffusion Transformer meets its gate.

A block of a DiT adds each branch to its stream as `x + gate * branch(x)`, and an adaLN linear
computes the gates from the timestep. Multiplying one gate, a chunk of that linear's output, scales
the whole branch, its bias included. `FAMILIES` lists these places for each model family, and
`read_backbone` finds them in a module. docs/backbones.md says how to add a family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn


class UnknownBackboneError(ValueError):
    """The diffusion model belongs to no family that Calibri has an entry for."""


@dataclass(frozen=True)
class Tap:
    """One place to scale one residual branch."""

    block: str  # kind of block: "double", "single", "joint"
    index: int  # of the block among its kind
    branch: str  # "attention", "attention2", "mlp", or "fused" for attention and MLP in one
    stream: str  # "image", "text", or "joint" for both in one sequence
    module: str  # path below the diffusion model
    chunk: int  # which of the equal chunks of the module's output, along its last axis
    chunks: int  # how many there are; 1 where the branch is the module's whole output

    @property
    def name(self) -> str:
        """For example "double.3.attention.image"."""
        return f"{self.block}.{self.index}.{self.branch}.{self.stream}"


@dataclass(frozen=True)
class Backbone:
    """The taps of one DiT, in the order of its blocks."""

    family: str  # "flux", "sd3"
    blocks: Mapping[str, int]  # how many blocks of each kind: {"double": 19, "single": 38}
    taps: tuple[Tap, ...]


@dataclass(frozen=True)
class Modulation:
    """An adaLN linear of a block, and which chunks of its output are gates."""

    module: str  # path below the block
    stream: str
    # Number of chunks -> (chunk, branch) of each gate. The linear's width says which layout it has;
    # a width without a layout means that the model is of another family.
    layouts: Mapping[int, tuple[tuple[int, str], ...]]


@dataclass(frozen=True)
class BlockKind:
    """The blocks in one `nn.ModuleList`."""

    name: str
    container: str
    modulations: tuple[Modulation, ...]


@dataclass(frozen=True)
class Family:
    """A model family: how to recognise it and where its gates are."""

    name: str
    classes: tuple[str, ...]  # a class of this name is the model's, or a base of it
    needs: tuple[str, ...]  # modules that its look-alikes lack
    kinds: tuple[BlockKind, ...]


_GATES_OF_SIX = ((2, "attention"), (5, "mlp"))  # shift, scale, gate, shift, scale, gate
_GATES_OF_NINE = (*_GATES_OF_SIX, (8, "attention2"))  # and shift, scale, gate

FLUX = Family(
    name="flux",
    classes=("Flux",),
    # LongCat-Image and Ovis use ComfyUI's Flux class too, but without pooled text.
    needs=("vector_in.in_layer",),
    kinds=(
        BlockKind(
            name="double",
            container="double_blocks",
            modulations=(
                Modulation("img_mod.lin", "image", {6: _GATES_OF_SIX}),
                Modulation("txt_mod.lin", "text", {6: _GATES_OF_SIX}),
            ),
        ),
        BlockKind(
            name="single",
            container="single_blocks",
            modulations=(Modulation("modulation.lin", "joint", {3: ((2, "fused"),)}),),
        ),
    ),
)

SD3 = Family(
    name="sd3",
    classes=("MMDiT",),
    needs=("x_embedder.proj",),
    kinds=(
        BlockKind(
            name="joint",
            container="joint_blocks",
            modulations=(
                Modulation(
                    "x_block.adaLN_modulation.1", "image", {6: _GATES_OF_SIX, 9: _GATES_OF_NINE}
                ),
                # Two chunks, no gate: the last text block only feeds the attention ("pre-only").
                Modulation("context_block.adaLN_modulation.1", "text", {6: _GATES_OF_SIX, 2: ()}),
            ),
        ),
    ),
)

FAMILIES = (FLUX, SD3)


def read_backbone(model: nn.Module) -> Backbone:
    """Find the taps of a diffusion model (ComfyUI's class, or one with its module names).

    Raises UnknownBackboneError where the model fits no entry of `FAMILIES` completely.
    """
    for family in FAMILIES:
        backbone = _read_family(model, family)
        if backbone is not None:
            return backbone
    found = ", ".join(_describe_containers(model)) or "no list of blocks"
    known = ", ".join(family.name for family in FAMILIES)
    raise UnknownBackboneError(
        f"The model's class {type(model).__name__} with {found} fits none of the families Calibri "
        f"knows ({known}): use a model of one of them, or add this one as docs/backbones.md says."
    )


def _read_family(model: nn.Module, family: Family) -> Backbone | None:
    """The model's taps, or None if anything in it differs from the family's entry."""
    names = {base.__name__ for base in type(model).__mro__}
    if names.isdisjoint(family.classes):
        return None
    if any(_find(model, path) is None for path in family.needs):
        return None
    blocks: dict[str, int] = {}
    taps: list[Tap] = []
    for kind in family.kinds:
        container = _find(model, kind.container)
        if not isinstance(container, nn.ModuleList) or len(container) == 0:
            return None
        blocks[kind.name] = len(container)
        for index, block in enumerate(container):
            for modulation in kind.modulations:
                linear = _find(block, modulation.module)
                chunks = 0 if linear is None else _count_chunks(linear)
                if chunks not in modulation.layouts:
                    return None
                path = f"{kind.container}.{index}.{modulation.module}"
                for chunk, branch in modulation.layouts[chunks]:
                    taps.append(
                        Tap(kind.name, index, branch, modulation.stream, path, chunk, chunks)
                    )
    return Backbone(family.name, blocks, tuple(taps))


def _find(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _count_chunks(linear: nn.Module) -> int:
    """How often an adaLN linear's output holds the width of its input; 0 where it does not fit."""
    # Read from the numbers a linear declares: a quantised weight has another shape.
    width = getattr(linear, "in_features", None)
    out = getattr(linear, "out_features", None)
    if not isinstance(width, int) or not isinstance(out, int) or width == 0 or out % width:
        return 0
    return out // width


def _describe_containers(model: nn.Module) -> Iterator[str]:
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList) and len(child):
            yield f"{name} ({len(child)} {type(child[0]).__name__})"
