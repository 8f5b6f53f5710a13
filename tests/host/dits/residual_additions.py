"""Watching a DiT add its branches to its streams, and changing single additions.

The independent judge of our taps: it knows nothing of modules, gates or projections. Inside a
block it follows the streams, from the block's inputs to its outputs, through every operation that
PyTorch dispatches, and so finds each residual addition `stream + contribution`, however the block
spells it. Any of them can be skipped, or its contribution read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

ADDITIONS = {aten.add.Tensor, aten.add_.Tensor, aten.add.out}
FUSED_ADDITIONS = {aten.addcmul.default, aten.addcmul_.default}
IN_PLACE = {aten.add_.Tensor, aten.addcmul_.default}
# What a stream may go through between two additions without ceasing to be the stream.
CARRIERS = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.expand.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.alias.default,
    aten.detach.default,
    aten.clone.default,
    aten.contiguous.default,
    aten._to_copy.default,
    aten.nan_to_num.default,
    aten.clamp.default,
    aten.cat.default,
}


@dataclass(frozen=True)
class Addition:
    """One `stream + contribution` of a call."""

    block: str  # path of the block's module
    index: int  # among the block's additions, in the order of the forward
    contribution: Tensor  # a copy
    exact: Tensor  # float64: before its last product, gate times branch, was rounded


@dataclass
class _Node:
    """A tensor that is a stream at some point of a block."""

    tensor: Tensor  # kept, so that its identity is not given to another
    sources: tuple[_Node, ...] = ()
    addition: int | None = None  # the block's addition that made it


@dataclass
class _Block:
    path: str
    nodes: dict[int, _Node] = field(default_factory=dict)
    # Contributions, residual or not, with their exact values.
    additions: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    products: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # rounded, exact
    stacks: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)  # a stack's parts, then it

    def exact_of(self, func: Any, args: tuple[Any, ...]) -> Tensor | None:
        """The float64 result of a product, of one written into a part of a tensor (the whole
        tensor's then), or of products joined; None for all else.
        """
        if func is aten.mul.Tensor:
            return _product(*args)
        if func is aten.cat.default and any(id(part) in self.products for part in args[0]):
            parts = [self.products.get(id(part), (part, part.double()))[1] for part in args[0]]
            return torch.cat(parts, *args[1:])
        if func is aten.mul_.Tensor:
            part, whole = args[0], _whole(args[0])
            exact = self.products.get(id(whole), (whole, whole.double()))[1].clone()
            there = exact.as_strided(part.shape, part.stride(), part.storage_offset())
            there.copy_(_product(*args))
            return exact
        return None


class Watch(TorchDispatchMode):
    """A mode under which a call's residual additions are noted, and some may be skipped."""

    def __init__(self, skip: Set[tuple[str, int]], inner: bool, between: bool) -> None:
        super().__init__()
        self.skip = skip
        self.inner = inner
        self.between = _Block("") if between else None  # the streams outside of all blocks
        self.open: list[_Block] = []
        self.found: list[Addition] = []
        self.passed: set[tuple[str, int]] = set()

    def enter(self, path: str, inputs: Any) -> None:
        block = _Block(path)
        for tensor in _tensors(inputs):
            if tensor.is_floating_point() and tensor.ndim > 1:
                block.nodes[id(tensor)] = _Node(tensor)
        self.open.append(block)

    def restart(self, stream: Tensor) -> None:
        self.open[-1].nodes[id(stream)] = _Node(stream)

    def leave(self, outputs: Any) -> None:
        block = self.open.pop()
        residual = set(range(len(block.additions))) if self.inner else set[int]()
        ahead = [block.nodes[id(t)] for t in _tensors(outputs) if id(t) in block.nodes]
        seen: set[int] = set()
        while ahead:
            node = ahead.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.addition is not None:
                residual.add(node.addition)
            ahead.extend(node.sources)
        for index in sorted(residual):
            self.found.append(Addition(block.path, index, *block.additions[index]))
        if self.between is not None:
            for tensor in _tensors(outputs):
                self.between.nodes.setdefault(id(tensor), _Node(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        block = self.open[-1] if self.open else self.between
        if block is None:
            return func(*args, **kwargs)
        if func in ADDITIONS or func in FUSED_ADDITIONS:
            for position in (0, 1) if func in ADDITIONS else (0,):
                node = block.nodes.get(id(args[position]))
                if node is not None:
                    return self._add(block, node, position, func, args, kwargs)
        if func is aten.sum.dim_IntList and id(args[0]) in block.stacks and args[1] == [0]:
            return self._sum(block, block.stacks[id(args[0])], func, args, kwargs)
        exact = block.exact_of(func, args)
        result = func(*args, **kwargs)
        if exact is not None:
            whole = result if func is not aten.mul_.Tensor else _whole(result)
            block.products[id(whole)] = (whole, exact)
        if func is aten.stack.default and id(args[0][0]) in block.nodes:
            block.stacks[id(result)] = (*args[0], result)
        if func in CARRIERS:
            sources = tuple(block.nodes[id(t)] for t in _tensors(args) if id(t) in block.nodes)
            if sources:
                for tensor in _tensors(result):
                    block.nodes[id(tensor)] = _Node(tensor, sources)
        return result

    def _add(
        self, block: _Block, stream: _Node, position: int, func: Any, args: Any, kwargs: Any
    ) -> Any:
        if func in ADDITIONS:
            assert "alpha" not in kwargs, "a residual addition with a factor of its own"
            index = self._note(block, torch.as_tensor(args[1 - position]))
        else:
            assert "value" not in kwargs, "a residual addition with a factor of its own"
            index = self._note(block, args[1] * args[2], _product(args[1], args[2]))
        if block is self.between:
            self.found.append(Addition(block.path, index, *block.additions[index]))
        if (block.path, index) in self.skip:
            result = stream.tensor if func in IN_PLACE else stream.tensor.clone()
            if "out" in kwargs:
                result = kwargs["out"].copy_(result)
        else:
            result = func(*args, **kwargs)
        sources = [stream]
        other = args[1 - position] if func in ADDITIONS else None
        if other is not None and id(other) in block.nodes:
            sources.append(block.nodes[id(other)])
        added = _Node(result, tuple(sources), index)
        if func in IN_PLACE:
            # Writing into a part of a stream, its text for example, changes the stream itself.
            for node in block.nodes.values():
                if _whole(node.tensor) is _whole(result):
                    node.sources = (*node.sources, added)
        block.nodes[id(result)] = added
        return result

    def _sum(
        self, block: _Block, parts: tuple[Tensor, ...], func: Any, args: Any, kwargs: Any
    ) -> Any:
        """`torch.stack([stream, contribution, contribution]).sum(0)`, in SD3.5's blocks."""
        stream, *contributions, stacked = parts
        node = block.nodes[id(stream)]
        for position, contribution in enumerate(contributions, start=1):
            index = self._note(block, contribution)
            if (block.path, index) in self.skip:
                stacked[position].zero_()
            node = _Node(stream, (node,), index)
        result = func(*args, **kwargs)
        block.nodes[id(result)] = _Node(result, (node,))
        return result

    def _note(self, block: _Block, contribution: Tensor, exact: Tensor | None = None) -> int:
        index = len(block.additions)
        if exact is None:
            _, exact = block.products.get(id(contribution), (None, contribution.double()))
        block.additions.append((contribution.clone(), exact))
        self.passed.add((block.path, index))
        return index


def _product(one: Tensor, other: Tensor | float) -> Tensor:
    return one.double() * (other.double() if isinstance(other, Tensor) else other)


def _whole(tensor: Tensor) -> Tensor:
    """The tensor of which this one is a view."""
    return tensor if tensor._base is None else tensor._base


@contextmanager
def watching(
    blocks: Mapping[str, nn.Module],
    skip: Set[tuple[str, int]] = frozenset(),
    *,
    restarts: Iterable[str] = (),
    inner: bool = False,
    between: bool = False,
    kind: type[Watch] = Watch,
) -> Iterator[Watch]:
    """Within it, a call of the model has its additions noted; those in `skip`, given as block path
    and index, leave their streams as they are.

    `restarts` are paths below a block: what such a module returns is the block's stream from there
    on (a linear that joins a long skip connection). With `inner`, an addition counts although its
    sum only feeds the block's next branch and is not passed on. With `between`, so does what the
    model adds to the blocks' outputs from one block to the next; the path there is "".
    """
    watch = kind(skip, inner, between)
    handles = []
    entrances = []

    def before(path: str) -> Callable[..., None]:
        return lambda module, args, kwargs: watch.enter(path, (args, kwargs))

    def entrance(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if watch.open:  # the block's own forward calls it
                return forward(*args, **kwargs)
            watch.enter(path, (args, kwargs))
            output = forward(*args, **kwargs)
            watch.leave(output)
            return output

        return watched

    for path, block in blocks.items():
        # Some models call a block by methods of its own, one for each of two streams.
        for name in dir(type(block)):
            if name.startswith("forward_"):
                block.__dict__[name] = entrance(path, getattr(block, name))
                entrances.append((block, name))
        handles.append(block.register_forward_pre_hook(before(path), with_kwargs=True))
        handles.append(block.register_forward_hook(lambda module, args, out: watch.leave(out)))
        for name, module in block.named_modules():
            if name in restarts:
                handles.append(
                    module.register_forward_hook(lambda module, args, out: watch.restart(out))
                )
    try:
        with watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()
        for block, name in entrances:
            del block.__dict__[name]
    assert skip <= watch.passed, f"{set(skip) - watch.passed} are no additions of this call"


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(getattr(values, "feats", None), Tensor):  # Trellis2's sparse tensors
        yield values.feats
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
