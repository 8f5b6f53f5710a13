"""Which numbers of a DiT's modulation QRM may change: the linears, and what their chunks are.

A *slot* is one module of one block: an adaLN linear whose output holds a shift, a scale and a gate
for each branch, or, where no linear of the block makes the gates, a branch's last module, whose
output is then scaled channel by channel. Where the chunks are is said by `calibri/families/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from ..calibri.backbones import Backbone, find_module, read_family, read_gates
from ..calibri.families.entry import PACKED, BlockKind, Output

MODES = ("add", "scale", "gates")


class QRMError(ValueError):
    """A QRM cannot be made for a model, read, or used on it."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a slot's module that QRM may change."""

    position: int  # among the module's chunks
    stream: str  # "image", "text", "joint"
    branch: str  # "attention", "attention2", "mlp", "fused" …
    role: str  # "shift", "scale", "gate"


@dataclass(frozen=True)
class Slot:
    """A module whose output [..., chunks * width] QRM changes."""

    module: str  # path below the diffusion model
    kind: str  # of its block: "double", "single", "joint"
    index: int  # of the block among its kind
    chunks: int
    width: int  # of a chunk
    changed: tuple[Chunk, ...]  # those that something reads, in their order


@dataclass(frozen=True)
class Layout:
    """The slots of one DiT, in the order of its blocks."""

    family: str
    blocks: Mapping[str, int]  # how many blocks of each kind
    slots: tuple[Slot, ...]
    linears: bool  # whether all slots are adaLN linears whose every chunk is known

    @property
    def modes(self) -> tuple[str, ...]:
        """What may be done here: without known shifts and scales, only gates are changed."""
        return MODES if self.linears else ("gates",)

    def for_mode(self, mode: str) -> Layout:
        """The slots that `mode` changes. Raises QRMError for a mode that is none here."""
        if mode not in MODES:
            raise QRMError(f"There is no mode {mode!r}: choose one of {', '.join(MODES)}.")
        if mode not in self.modes:
            raise QRMError(
                f"The mode {mode!r} changes shifts and scales of adaLN linears, which blocks of "
                f"the family {self.family} do not have: choose the mode 'gates'."
            )
        if mode != "gates":
            return self
        kept = (
            replace(slot, changed=tuple(chunk for chunk in slot.changed if chunk.role == "gate"))
            for slot in self.slots
        )
        return replace(self, slots=tuple(slot for slot in kept if slot.changed))


def read_layout(model: nn.Module) -> Layout:
    """The slots of a diffusion model, on any device, the meta device too.

    Raises UnknownBackboneError for a model of no known family, QRMError for a family whose samples
    cannot be changed one by one, or whose branches end in something that has no channels of its
    own.
    """
    family, backbone = read_family(model)
    _refuse(backbone)
    slots: list[Slot] = []
    linears = True
    for kind in family.kinds:
        container = find_module(model, kind.container)
        if container is None:
            continue
        children = list(container.named_children())
        for index, (child, block) in enumerate(children):
            unread = kind.unread_in_last if index == len(children) - 1 else ()
            for slot, known in _slots_of(kind, index, block, f"{kind.container}.{child}", unread):
                if slot.width == 0:
                    raise QRMError(
                        f"In the family {backbone.family}, {slot.module} gives no channels along "
                        "its last axis that could be scaled: use a model of another family."
                    )
                slots.append(slot)
                linears = linears and known
    return Layout(backbone.family, dict(backbone.blocks), tuple(slots), linears)


def _refuse(backbone: Backbone) -> None:
    for tap in backbone.taps:
        if tap.rows == PACKED:
            raise QRMError(
                f"The family {backbone.family} computes all samples of a call in one sequence, "
                "where they cannot have vectors of their own: use a model of another family."
            )
        if tap.tanh:
            raise QRMError(
                f"The gates of the family {backbone.family} pass through tanh, so vectors on them "
                "would not be the change of the branch: use a model of another family."
            )


def _slots_of(
    kind: BlockKind, index: int, block: nn.Module, path: str, unread: tuple[str, ...]
) -> Iterator[tuple[Slot, bool]]:
    """A block's slots, and whether each is a linear whose every chunk is known."""
    found: dict[str, tuple[Slot, int]] = {}
    for branch in kind.branches:
        module = find_module(block, branch.module)
        if module is None:
            continue
        below = f"{path}.{branch.module}"
        if isinstance(branch, Output):
            if branch.stream not in unread:
                width = _width(module)
                chunk = Chunk(0, branch.stream, branch.branch, "gate")
                yield Slot(below, kind.name, index, 1, width, (chunk,)), False
            continue
        gates = read_gates(branch, module, block)
        assert gates is not None  # else the family would not have fitted
        chunks, repeats, layout = gates
        named = [Chunk(at, branch.stream, name, "gate") for at, name in layout]
        named += [
            Chunk(at, branch.stream, name, role) for at, name, role in branch.norms.get(chunks, ())
        ]
        read = [c for c in named if branch.stream not in unread or _feeds_others(c)]
        slot, known = found.get(
            below,
            (
                Slot(below, kind.name, index, chunks, _out(module) // (chunks * repeats), ()),
                0,
            ),
        )
        changed = tuple(sorted((*slot.changed, *read), key=lambda chunk: chunk.position))
        found[below] = (replace(slot, changed=changed), known + len(named))
    for slot, known in found.values():
        if slot.changed:
            yield slot, known == slot.chunks


def _feeds_others(chunk: Chunk) -> bool:
    """Whether a chunk acts where nothing reads its stream after the block: its keys and values are
    read by the other stream's attention."""
    return chunk.branch == "attention" and chunk.role != "gate"


def _out(linear: nn.Module) -> int:
    out = linear.out_features
    assert isinstance(out, int)  # read_gates has looked
    return out


def _width(module: nn.Module) -> int:
    """The channels of what a branch's last module gives: its own, or those of its last part. 0
    where they do not lie along the last axis, as behind a convolution.
    """
    for part in reversed(list(module.modules())):
        out = getattr(part, "out_features", None)
        if isinstance(out, int):
            return out
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if weight is not None and weight.ndim == 1 else 0
