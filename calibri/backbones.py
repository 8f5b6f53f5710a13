"""Where each residual branch of a Diffusion Transformer is scaled.

A block of a DiT adds each branch to its stream as `x + gate * branch(x)`. A *tap* is a place where
one multiplication scales that whole contribution, the branch's bias included: a chunk of the adaLN
linear that computes the gate, or the output of the branch's last module. `families/` lists these
places for each model family, and `read_backbone` finds them in a module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from .families import FAMILIES
from .families.entry import TILED, BlockKind, Family, Modulation, Output


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
    axis: int = 0  # of the module's output, the one along which the samples lie
    rows: str = TILED  # how they lie there, see families/entry.py
    repeats: int = 1  # how often all the chunks come along the last axis
    tanh: bool = False  # it is the tanh of the chunk that multiplies the branch

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
    caches: tuple[str, ...] = ()  # see families/entry.py


def read_backbone(model: nn.Module) -> Backbone:
    """Find the taps of a diffusion model: ComfyUI's class, diffusers', or one with such modules.

    Raises UnknownBackboneError where the model fits no entry of `FAMILIES` completely, and
    ValueError for an entry whose taps of one module contradict each other.
    """
    return read_family(model)[1]


def read_family(model: nn.Module) -> tuple[Family, Backbone]:
    """`read_backbone`, and the entry that fits."""
    for family in FAMILIES:
        backbone = _read_family(model, family)
        if backbone is not None:
            _check_modules(backbone)
            return family, backbone
    found = ", ".join(_describe_containers(model)) or "no list of blocks"
    raise UnknownBackboneError(
        f"The model's class {type(model).__name__} with {found} fits none of the families that "
        "Calibri knows: use a model that docs/backbones.md lists, or add this one as it says there."
    )


def _read_family(model: nn.Module, family: Family) -> Backbone | None:
    """The model's taps, or None if anything in it differs from the family's entry."""
    names = {base.__name__ for base in type(model).__mro__}
    if names.isdisjoint(family.classes):
        return None
    if any(find_module(model, path) is None for path in family.needs):
        return None
    if any(find_module(model, path) is not None for path in family.lacks):
        return None
    blocks: dict[str, int] = {}
    taps: list[Tap] = []
    for kind in family.kinds:
        container = find_module(model, kind.container)
        children = [] if container is None else list(container.named_children())
        if not children:
            if kind.optional:
                continue
            return None
        blocks[kind.name] = len(children)
        for index, (child, block) in enumerate(children):
            unread = kind.unread_in_last if index == len(children) - 1 else ()
            found = _read_block(kind, index, block, f"{kind.container}.{child}", unread)
            if found is None:
                return None
            taps.extend(found)
    return Backbone(family.name, blocks, tuple(taps), family.caches)


def _read_block(
    kind: BlockKind, index: int, block: nn.Module, path: str, unread: tuple[str, ...]
) -> list[Tap] | None:
    """A block's taps without those of the streams `unread`, or None if it is not built as its kind
    says.
    """
    taps = []
    for branch in kind.branches:
        if branch.stream in unread:
            continue
        module = find_module(block, branch.module)
        below = f"{path}.{branch.module}"
        if isinstance(branch, Output):
            if module is None:
                if branch.optional:
                    continue
                return None
            taps.append(
                Tap(
                    block=kind.name,
                    index=index,
                    branch=branch.branch,
                    stream=branch.stream,
                    module=below,
                    chunk=0,
                    chunks=1,
                    axis=branch.axis,
                    rows=branch.rows,
                )
            )
            continue
        gates = None if module is None else read_gates(branch, module, block)
        if gates is None:
            return None
        chunks, repeats, layout = gates
        for chunk, name in layout:
            taps.append(
                Tap(
                    block=kind.name,
                    index=index,
                    branch=name,
                    stream=branch.stream,
                    module=below,
                    chunk=chunk,
                    chunks=chunks,
                    rows=branch.rows,
                    repeats=repeats,
                    tanh=branch.tanh,
                )
            )
    return taps


def read_gates(
    modulation: Modulation, linear: nn.Module, block: nn.Module
) -> tuple[int, int, tuple[tuple[int, str], ...]] | None:
    """How many chunks an adaLN linear's output has, how often they come and which are gates; None
    if the linear does not fit.
    """
    # Read from the numbers a linear declares: a quantised weight has another shape.
    width = getattr(linear, "in_features", None)
    if modulation.width_of:
        width = getattr(find_module(block, modulation.width_of), "out_features", None)
    out = getattr(linear, "out_features", None)
    if not isinstance(width, int) or not isinstance(out, int) or width == 0 or out % width:
        return None
    chunks, repeats = out // width, 1
    if modulation.repeats:
        (pattern,) = modulation.layouts
        chunks, repeats = pattern, chunks // pattern
        if out != repeats * pattern * width:
            return None
    layout = modulation.layouts.get(chunks)
    return None if layout is None else (chunks, repeats, layout)


def _check_modules(backbone: Backbone) -> None:
    """A tapped module is multiplied once, so its taps agree on all but their chunks."""
    first: dict[str, Tap] = {}
    for tap in backbone.taps:
        other = first.setdefault(tap.module, tap)
        for name in ("chunks", "axis", "rows", "repeats", "tanh"):
            if getattr(tap, name) != getattr(other, name):
                raise ValueError(
                    f"The entry of {backbone.family} says of {tap.module} that {name} is "
                    f"{getattr(other, name)!r} for {other.name} and {getattr(tap, name)!r} for "
                    f"{tap.name}: give all branches of one module the same."
                )
        if other is not tap and tap.chunk == other.chunk:
            raise ValueError(
                f"The entry of {backbone.family} taps chunk {tap.chunk} of {tap.module} for both "
                f"{other.name} and {tap.name}: give each branch a chunk of its own."
            )


def find_module(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _describe_containers(model: nn.Module) -> Iterator[str]:
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList) and len(child):
            yield f"{name} ({len(child)} {type(child[0]).__name__})"
