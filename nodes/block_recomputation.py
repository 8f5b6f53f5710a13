"""What the backward pass needs of a frozen model: copies of what blocks may write into, and blocks
that are computed again in it rather than keep their activations.

PyTorch's own checkpoint cannot do both: blocks of FLUX add to their streams in place, and what it
saves while it computes again would then be overwritten unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..calibri.taps import GainTaps
from ..calibri.vectors import Vectors

_TENSOR = object()  # where a block's result holds one


class Kept:
    """Saves copies for the backward pass, since blocks write into what they were given."""

    def __init__(self, model: nn.Module) -> None:
        # The weights are not written into, and copies of them would not fit.
        tensors = (*model.parameters(), *model.buffers())
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def copies(self) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(self._copy, lambda tensor: tensor)

    def _copy(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            known = tensor.untyped_storage().data_ptr() in self._weights
            return tensor if known else tensor.clone()
        return tensor


def computed_again(
    forward: Callable[..., Any],
    taps: GainTaps,
    kept: Kept,
    vectors: Vectors,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call a block so that it is computed again for its gradients, with the same vectors."""
    values, shape = tree_flatten((args, kwargs, dict(vectors.add), dict(vectors.scale)))
    at = [index for index, value in enumerate(values) if isinstance(value, Tensor)]
    outputs: list[Any] = []  # what the first call gave, its tensors aside
    # The backward pass runs outside of the caller's autocast.
    kind = next((values[index].device.type for index in at), "cpu")
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def run(tensors: Iterable[Tensor], again: bool) -> tuple[Tensor, ...]:
        filled = list(values)
        for index, tensor in zip(at, tensors, strict=True):
            filled[index] = tensor
        own_args, own_kwargs, add, scale = tree_unflatten(filled, shape)
        if again:
            same = torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False)
            with same, taps.scaled(None, Vectors(add, scale)), kept.copies():
                found = forward(*own_args, **own_kwargs)
        else:
            found = forward(*own_args, **own_kwargs)
        flat, result = tree_flatten(found)
        outputs[:] = [[_TENSOR if isinstance(value, Tensor) else value for value in flat], result]
        return tuple(value for value in flat if isinstance(value, Tensor))

    # Copies, so that the next block may write into what this one gave.
    tensors = (value.clone() for value in _Again.apply(run, *[values[index] for index in at]))
    given, result = outputs
    return tree_unflatten([next(tensors) if v is _TENSOR else v for v in given], result)


class _Again(torch.autograd.Function):
    """A block without activations: its backward pass computes it once more."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> Any:
        ctx.run = run
        ctx.wanted = [tensor.requires_grad for tensor in tensors]
        # Copies, because the block may write into its inputs.
        ctx.tensors = [tensor.detach().clone() for tensor in tensors]
        found = run(tensors, False)
        return tuple(value.clone() for value in found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        inputs = [
            tensor.requires_grad_(wanted and tensor.is_floating_point())
            for tensor, wanted in zip(ctx.tensors, ctx.wanted, strict=True)
        ]
        with torch.enable_grad():
            # Not the leaves themselves, in which a block may not add in place.
            found = ctx.run([t * 1 if t.requires_grad else t for t in inputs], True)
        pairs = [
            (value, gradient)
            for value, gradient in zip(found, gradients, strict=True)
            if gradient is not None and value.requires_grad
        ]
        targets = [tensor for tensor in inputs if tensor.requires_grad]
        values, given = zip(*pairs, strict=True) if pairs else ((), ())
        computed = iter(torch.autograd.grad(values, targets, given, allow_unused=True))
        return None, *(next(computed) if t.requires_grad else None for t in inputs)
