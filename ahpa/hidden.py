"""The picture's tokens at a block of a DiT: where they lie in what the block gives back.

A block hands on its picture's tokens alone, in a tuple with the text's, or in one sequence with
them. Which of these is data, for each family and kind of block. Tokens are in the order of the
patches, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..calibri.backbones import UnknownBackboneError, find_module, read_family

AT_START, AT_END = "start", "end"


class HiddenError(ValueError):
    """The model has no such block, or its picture's tokens are not known to AHPA."""


@dataclass(frozen=True)
class Place:
    """Where the picture's tokens are in a block's output."""

    item: int | None = None  # of a tuple; None where the output is a tensor
    at: str = AT_START  # of the sequence
    # Pictures are padded to a multiple of the model's number of this name, behind their tokens.
    padded_to: str = ""

    def tokens(self, output: Any, count: int, model: nn.Module) -> Tensor:
        """The `count` tokens of the picture [B, count, H], a view of the output."""
        sequence: Tensor = output if self.item is None else output[self.item]
        multiple = getattr(model, self.padded_to, None) if self.padded_to else None
        padded = count if not multiple else -(-count // multiple) * multiple
        first = sequence.shape[1] - padded if self.at == AT_END else 0
        found = sequence[:, first : first + count]
        if first < 0 or found.shape[1] != count:
            raise HiddenError(
                f"A block gives {sequence.shape[1]} tokens, and the picture has {count}: AHPA "
                "cannot tell which are the picture's."
            )
        return found


_IMAGE, _JOINT = Place(), Place(at=AT_END)
_FLUX = {"double": Place(item=0), "single": _JOINT}
_LUMINA = {
    "noise_refiner": Place(padded_to="pad_tokens_multiple"),
    "layer": Place(at=AT_END, padded_to="pad_tokens_multiple"),
}
PLACES: Mapping[str, Mapping[str, Place]] = {
    "flux": _FLUX,
    "flux2": _FLUX,
    "chroma": _FLUX,
    "longcat-image": _FLUX,
    "ovis-image": _FLUX,
    "sd3": {"joint": Place(item=1)},
    "qwen-image": {"block": Place(item=1)},
    "wan": {"block": _IMAGE},
    "lumina2": _LUMINA,
    "z-image": _LUMINA,
}
"""Family → kind of block → place. Kinds that are not here hold no picture, or nobody has looked."""

# Of this package (`sit.py`), which is no family of Calibri's.
_OWN = {"SiT": ("sit", "blocks", _IMAGE)}


@dataclass(frozen=True)
class Block:
    """A block that holds the picture's tokens."""

    name: str  # "double.3"
    module: str  # path below the diffusion model
    place: Place


def read_blocks(model: nn.Module) -> tuple[Block, ...]:
    """The blocks of a diffusion model that hold the picture, in the order in which they run.

    Raises HiddenError for a family whose tokens are not known.
    """
    own = _OWN.get(type(model).__name__)
    if own is not None:
        _, container, place = own
        return tuple(_children(model, container, "block", place))
    try:
        family, _ = read_family(model)
    except UnknownBackboneError as error:
        raise HiddenError(str(error)) from error
    places = PLACES.get(family.name)
    if places is None:
        raise HiddenError(
            f"AHPA does not know where the family {family.name} has the picture's tokens: use a "
            f"model of {', '.join(PLACES)}."
        )
    found: list[Block] = []
    for kind in family.kinds:
        if kind.name in places:
            found += _children(model, kind.container, kind.name, places[kind.name])
    return tuple(found)


def _children(model: nn.Module, container: str, kind: str, place: Place) -> Iterator[Block]:
    blocks = find_module(model, container)
    children = () if blocks is None else blocks.named_children()
    for index, (child, _) in enumerate(children):
        yield Block(f"{kind}.{index}", f"{container}.{child}", place)


def chosen_block(blocks: tuple[Block, ...], number: int) -> Block:
    """Block `number`, counted from 1; 0 chooses: a quarter of the depth, as the paper's README has.

    (Block 7 of the 28 of SiT-XL.) Raises HiddenError for a number that is too large.
    """
    if not 0 <= number <= len(blocks):
        raise HiddenError(
            f"block is {number}, and the model has {len(blocks)} blocks that hold the picture: "
            f"give 1 to {len(blocks)}, or 0 for a quarter of the depth."
        )
    return blocks[max(1, round(len(blocks) / 4)) - 1 if number == 0 else number - 1]


class HiddenReader:
    """Keeps a block's tokens of the call that runs inside `with`, gradients and all.

    `count` is the picture's number of tokens. Of several runs of the block in one call the last is
    kept: gradient checkpointing of a reentrant kind runs a block a second time.
    """

    def __init__(self, model: nn.Module, block: Block, count: int) -> None:
        self.block, self._model, self._count = block, model, count
        self._tokens: Tensor | None = None
        self._handle: RemovableHandle | None = None

    @property
    def tokens(self) -> Tensor:
        """[B, count, H]. Raises RuntimeError where the block did not run."""
        if self._tokens is None:
            raise RuntimeError(f"The block {self.block.name} did not run in this call.")
        return self._tokens

    def __enter__(self) -> HiddenReader:
        self._tokens = None
        module = self._model.get_submodule(self.block.module)
        self._handle = module.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._handle is not None
        self._handle.remove()

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        # Some blocks add to the last one's output in place: a copy stays what it was.
        self._tokens = self.block.place.tokens(output, self._count, self._model).clone()
