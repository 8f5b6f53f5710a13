"""Gradient checkpointing: blocks are computed again in the backward pass, which saves memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the activations within these blocks are not kept for the backward pass.

    Hooks of the blocks themselves see one call.
    """
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for block in blocks:
            changed.append((block, block.__dict__.get("forward")))
            block.forward = _again(block.forward)
        yield
    finally:
        for block, own in reversed(changed):
            if own is None:
                del block.forward
            else:
                block.forward = own


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def on_copies(*inputs: Any, **named: Any) -> Any:
        # FLUX's blocks add to their inputs in place, and these are needed a second time.
        return forward(
            *(_own(value) for value in inputs),
            **{name: _own(value) for name, value in named.items()},
        )

    def run(*inputs: Any, **named: Any) -> Any:
        return checkpoint(on_copies, *inputs, use_reentrant=False, **named)

    return run


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
