"""Gradient checkpointing: blocks are computed again in the backward pass, which saves memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
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
    def run(*inputs: Any, **named: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    return run
