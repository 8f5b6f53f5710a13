"""What a branch is made of: which of the model's inputs reach it, and whether tokens meet in it.

A judge of the names of our taps that knows no modules. Each tensor of a call carries the inputs it
was computed from: latents, prompt or another sequence of tokens; a stream keeps its own through the
branches that are added to it. Where two activations are multiplied as matrices, queries and keys
for example, tokens meet: that is attention and never an MLP. Where one of the two has nothing of
the latents in it, theirs have asked others: that is cross-attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .residual_additions import FUSED_ADDITIONS, Watch, _Block, _Node, _tensors, _whole

aten = torch.ops.aten

LATENTS, PROMPT, CONDITION = "latents", "prompt", "condition"
MEETING, ASKING = "meeting", "asking"
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
# Arguments of the models' forwards; the first one holds the latents.
PROMPTS = (
    "context",
    "encoder_hidden_states",
    "txt",
    "text",
    "cap_feats",
    "input_ids",
    "crossattn",
    "embeds",
)
CONDITIONS = ("siglip_feats", "audio_embed", "face_pixel_values")

Labels = frozenset[str]
NONE: Labels = frozenset()


@dataclass(frozen=True)
class Origin:
    """Of one residual addition: what its stream was made of when it entered the block or the model,
    and what its contribution was made of.
    """

    stream: Labels
    contribution: Labels


class Origins(Watch):
    """A mode that notes each addition's origin too."""

    def __init__(self, skip: Set[tuple[str, int]], inner: bool, between: bool) -> None:
        super().__init__(skip, inner, between)
        self.origins: dict[tuple[str, int], Origin] = {}
        self._labels: dict[int, tuple[Tensor, Labels]] = {}  # the tensor keeps its id its own
        self._stream: Labels | None = None  # of the addition that is under way

    def mark(self, values: Any, label: str) -> None:
        for tensor in _tensors(values):
            self._set(tensor, self._of(tensor) | {label})

    def enter(self, path: str, inputs: Any) -> None:
        for tensor in _tensors(inputs):
            self._set(tensor, self._of(tensor) - {MEETING, ASKING})
        super().enter(path, inputs)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._stream = None
        result = super().__torch_dispatch__(func, types, args, kwargs)
        labels = self._stream
        if labels is None:
            given = [self._of(tensor) for tensor in _tensors((args, kwargs or {}))]
            labels = NONE.union(*given)
            factors = given[-2:] if func in PRODUCTS else []
            if "scaled_dot_product" in str(func):
                factors = given[:2]  # queries and keys
            if factors and all(factors):
                asking = sum(LATENTS in factor for factor in factors) == 1
                labels |= {MEETING, ASKING} if asking else {MEETING}
        if labels:
            for tensor in _tensors(result):
                self._set(tensor, labels)
                if func._schema.is_mutable:
                    whole = _whole(tensor)
                    self._set(whole, self._of(whole) | labels)
        return result

    def _add(
        self, block: _Block, stream: _Node, position: int, func: Any, args: Any, kwargs: Any
    ) -> Any:
        parts = args[1:3] if func in FUSED_ADDITIONS else [args[1 - position]]
        self._take(block, stream.tensor, parts)
        return super()._add(block, stream, position, func, args, kwargs)

    def _sum(
        self, block: _Block, parts: tuple[Tensor, ...], func: Any, args: Any, kwargs: Any
    ) -> Any:
        stream, *contributions, _ = parts
        for position, contribution in enumerate(contributions):
            self._take(block, stream, [contribution], position)
        return super()._sum(block, parts, func, args, kwargs)

    def _take(self, block: _Block, stream: Tensor, parts: Iterable[Any], position: int = 0) -> None:
        made_of = NONE.union(*(self._of(part) for part in _tensors(list(parts))))
        origin = Origin(self._of(stream), made_of)
        self.origins[block.path, len(block.additions) + position] = origin
        if origin.stream:  # a shift, split off from what modulates the block, is no stream
            self._stream = origin.stream

    def _of(self, tensor: Tensor) -> Labels:
        return self._labels.get(id(tensor), (tensor, NONE))[1]

    def _set(self, tensor: Tensor, labels: Labels) -> None:
        self._labels[id(tensor)] = (tensor, labels)


@contextmanager
def inputs_marked(model: nn.Module, watch: Origins) -> Iterator[None]:
    """Within it, a call of the model tells `watch` its latents, its prompt and other conditions."""
    names = inspect.signature(type(model).forward)

    def mark(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = dict(names.bind(module, *args, **kwargs).arguments)
        given.pop("self")
        watch.mark(given.pop(next(iter(given))), LATENTS)
        for extra in [value for value in given.values() if isinstance(value, dict)]:  # **kwargs
            given.update(extra)
        for name, value in given.items():
            if "latents" in str(name):
                watch.mark(value, LATENTS)
            elif str(name).startswith(PROMPTS):
                watch.mark(value, PROMPT)
            elif str(name).startswith(CONDITIONS):
                watch.mark(value, CONDITION)

    handle = model.register_forward_pre_hook(mark, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
