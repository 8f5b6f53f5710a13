"""Gains on gates that a block passes through tanh before it multiplies a branch with them.

No change of a gate makes its tanh s times as large for every s. So the adaLN linear's output, whose
chunks the gates are, carries the gains along, and they act on the result of the tanh.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class TanhGates(Tensor):
    """An adaLN linear's output [B, chunks * H], or one chunk [B, H] of it, with gains [B, chunks].

    `chunk` splits both, `tanh` applies the gains; what it gives is an ordinary tensor, as is the
    result of anything else: chunks that are no gates have gains of 1.
    """

    gains: Tensor

    @staticmethod
    def carrying(output: Tensor, gains: Tensor) -> TanhGates:
        gates = output.as_subclass(TanhGates)
        gates.gains = gains
        return gates

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if func in (torch.chunk, Tensor.chunk):
                return tuple(
                    cls.carrying(part, gain)
                    for part, gain in zip(result, args[0].gains.unbind(1), strict=True)
                )
            if func in (torch.tanh, Tensor.tanh):
                return (result * args[0].gains[:, None]).to(result.dtype)
        return result
