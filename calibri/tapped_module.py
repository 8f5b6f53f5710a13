"""One tapped module, and the forward that stands in for its own during a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .families.entry import INTERLEAVED, PACKED, TILED
from .tanh_gates import TanhGates


class ReplacedForward:
    """One module and the forward that stands in for its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.original: Callable[..., Any] = module.forward
        # One object for the module's life: torch.compile recognises it and does not compile again.
        self._forward: Callable[..., Any] = self.forward
        self._own_forward: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)

    def enter(self) -> None:
        # An instance's forward, put there by another pack, is the original and comes back after.
        # Through __dict__, because nn.Module's attributes cost microseconds per module and call.
        self._own_forward = self.module.__dict__.get("forward")
        self.original = self.module.forward
        self.module.__dict__["forward"] = self._forward

    def leave(self) -> None:
        if self.module.__dict__.get("forward") is not self._forward:
            return  # interrupted before it was in place
        if self._own_forward is None:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self._own_forward
        self._own_forward = None


class UncompiledModule(ReplacedForward):
    """A module that torch.compile leaves to Python."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._forward = torch.compiler.disable(self.forward)


class TappedModule(ReplacedForward):
    """A module whose output has its chunks multiplied by gains and changed by vectors.

    `chunks`, `axis`, `rows`, `repeats` and `tanh` are those of a `Tap`.
    """

    def __init__(
        self,
        module: nn.Module,
        path: str,
        chunks: int,
        axis: int = 0,
        rows: str = TILED,
        repeats: int = 1,
        tanh: bool = False,
    ) -> None:
        super().__init__(module)
        self.path = path
        self.chunks = chunks
        self.axis = axis
        self.rows = rows
        self.repeats = repeats
        self.tanh = tanh
        # float32 during a call: gains as GainTaps shapes them, vectors [B, chunks, H].
        self.gain: Tensor | None = None
        self.scale: Tensor | None = None
        self.add: Tensor | None = None
        self._flat: Tensor | None = None  # `add` as the output lies, where nothing else is to do

    def change(self, scale: Tensor | None, add: Tensor | None) -> None:
        """Vectors for the call that begins, after the gain."""
        self.scale, self.add = scale, add
        if add is not None and scale is None and self.gain is None and self.repeats == 1:
            # The usual case. What is done here for all blocks at once is not started in each.
            self._flat = add.flatten(1)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output [..., chunks * H] as gain · (output · (1 + scale) + add)."""
        output = self.original(*args, **kwargs)
        flat = self._flat
        if flat is not None and self._lies_alike(output, flat):
            return _sum(output, flat if output.ndim == 2 else flat[:, None])
        factor = self.gain
        if self.scale is not None:
            scale = self._lying(1.0 + self.scale)
            factor = scale if factor is None else self._lying(factor) * scale
        if factor is None and self.add is None:
            return output  # another pack kept this forward longer than the call
        if not isinstance(output, Tensor):
            # Trellis2's sparse tensor: the features of each voxel, and where the voxels are.
            return output.replace(self._changed(output.feats, factor))
        return self._changed(output, factor)

    def _lying(self, vectors: Tensor) -> Tensor:
        """Vectors [B, chunks, H] beside gains [chunks, 1] or [B, 1, chunks, 1]."""
        if vectors.ndim == 4:
            return vectors
        if vectors.ndim == 2:
            return vectors[None, None]
        return vectors[:, None]

    def _changed(self, output: Tensor, factor: Tensor | None) -> Tensor:
        factor = None if factor is None else self._on(output, factor)
        if self.add is None:
            assert factor is not None
            return self._scaled(output, factor)
        add = self._on(output, self._lying(self.add))
        if self.gain is not None:
            add = add * self._on(output, self.gain)
        parts = self._chunked(output)
        if factor is None:
            return _sum(parts, add).view(output.shape)
        return (parts * factor + add).to(output.dtype).view(output.shape)

    def _lies_alike(self, output: Any, flat: Tensor) -> bool:
        """Whether each row of the output, or each of its tokens, has the numbers of a sample."""
        return (
            isinstance(output, Tensor)
            and output.ndim <= 3
            and flat.shape[0] in (1, output.shape[0])
            and flat.device == output.device
        )

    def _on(self, output: Tensor, factor: Tensor) -> Tensor:
        """Factors on the output's device, in the order of its rows."""
        if factor.device != output.device:
            factor = factor.to(output.device)
        return factor if factor.ndim == 2 else self._for_rows(factor, output)

    def _scaled(self, output: Tensor, factor: Tensor) -> Tensor:
        if self.tanh:
            return TanhGates.carrying(output, factor.view(-1, self.chunks))
        if output.requires_grad or factor.requires_grad:
            # Type promotion makes the products float32 for half-precision outputs.
            return (self._chunked(output) * factor).to(output.dtype).view(output.shape)
        few = self.chunks != 1 and (output.ndim == 2 or output.shape[1] == 1)
        if (few and self.repeats == 1) or self._own_forward is not None:
            # Another pack may keep this tensor and return it again, so it stays as it is.
            output = output.clone()
        # Else fresh from the module: in place, an output of any size needs no more memory.
        self._chunked(output).mul_(factor)
        return output

    def _chunked(self, output: Tensor) -> Tensor:
        """A view [rows, tokens, chunks, H]; a whole output as it is."""
        if self.chunks == 1:
            return output
        width = output.shape[-1] // (self.chunks * self.repeats)
        return output.view(output.shape[0], -1, self.chunks, width)

    def _for_rows(self, factor: Tensor, output: Tensor) -> Tensor:
        """The factors [B, 1, chunks, 1 or H] for the output's rows, which hold each sample once or
        more.

        [rows, 1, chunks, 1 or H]; for a whole output, rows along its axis, channels along the last
        and 1 along the others.
        """
        samples, rows = factor.shape[0], output.shape[self.axis]
        if samples != 1:
            factor = self._repeated(factor, samples, rows)
        if self.chunks != 1:
            return factor
        shape = [1] * output.ndim
        shape[-1] = factor.shape[-1]
        shape[self.axis] = factor.shape[0]
        return factor.view(shape)

    def _repeated(self, factor: Tensor, samples: int, rows: int) -> Tensor:
        if self.rows == PACKED:
            raise ValueError(
                f"{self.path} computes all samples of a call together but there are gains "
                f"for {samples} samples: pass one row of gains, or call the model for each sample."
            )
        if rows % samples:
            raise ValueError(
                f"{self.path} has {rows} rows but there are gains for {samples} samples: "
                "pass one row of gains, or one for each sample."
            )
        if rows == samples:
            return factor
        times = rows // samples
        # Not repeat_interleave, which asks the device for sizes in some versions of PyTorch.
        lie = (1, times, 1) if self.rows == INTERLEAVED else (times, 1, 1)
        repeated = factor.reshape(samples, 1, -1).repeat(*lie)
        return repeated.view(rows, 1, self.chunks, -1)

    def leave(self) -> None:
        self.gain = self.scale = self.add = self._flat = None
        super().leave()


def _sum(output: Tensor, add: Tensor) -> Tensor:
    """Their sum in the output's dtype, computed in float32 or better and rounded once."""
    if output.dtype == add.dtype:
        return output + add
    if output.requires_grad or add.requires_grad:
        return (output + add).to(output.dtype)
    return torch.add(output, add, out=torch.empty_like(output))  # one kernel
