"""Gains on a backbone's taps for the length of a model call, one set of gains per sample.

For the call, each tapped module's `forward` is replaced by one that multiplies the module's output
or chunks of it. Nothing is written into weights, so LoRAs, offloaded and quantised weights are
untouched, and `torch.compile` sees the change, which it does not for forward hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import Backbone, Tap
from .families.entry import INTERLEAVED, PACKED
from .tanh_gates import TanhGates


class GainTaps:
    """The taps of one module. Its owner keeps it: a copy of the module needs taps of its own.

    A model is called by one thread at a time; two GainTaps on one module multiply.
    """

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        self.model = model
        self._count = len(backbone.taps)
        self._caches = backbone.caches
        taps_of: dict[str, list[int]] = {}
        for position, tap in enumerate(backbone.taps):
            taps_of.setdefault(tap.module, []).append(position)
        # Modules of equal chunks stand side by side: one unbind makes the factors of them all.
        modules_of: dict[int, list[str]] = {}
        for path, positions in taps_of.items():
            modules_of.setdefault(backbone.taps[positions[0]].chunks, []).append(path)
        self._modules: list[_TappedModule] = []
        columns = [0] * self._count  # for each tap, its column among all modules' chunks
        self._width = 0
        for chunks, paths in modules_of.items():
            for path in paths:
                for position in taps_of[path]:
                    columns[position] = self._width + backbone.taps[position].chunk
                tap = backbone.taps[taps_of[path][0]]
                self._modules.append(_TappedModule(model.get_submodule(path), tap))
                self._width += chunks
        self._alike = [(chunks, len(paths)) for chunks, paths in modules_of.items()]
        # Compiled code that is handed a TanhGates applies its gains twice.
        blocks = {tap.module.rpartition(".")[0] for tap in backbone.taps if tap.tanh}
        self._blocks = [_UncompiledModule(model.get_submodule(path)) for path in sorted(blocks)]
        self._columns = torch.tensor(columns)
        self._links = _links(model, taps_of)
        self._active = False

    def still_fit(self) -> bool:
        """Whether the modules are still the model's: another pack may have put in its own."""
        return all(children.get(name) is child for children, name, child in self._links)

    @contextmanager
    def scaled(self, gains: Tensor) -> Iterator[None]:
        """Within it, calls of the model have each branch multiplied by its gain.

        `gains` is [B, T], a row per sample and a column per tap, on the device the model computes
        on. B is 1, or the number of samples in a call; a tapped tensor may hold each sample several
        times over (at another timestep, or once per frame). A gain of 1 changes no bit: the product
        is formed in float32 or better and rounded to the output's dtype.

        Raises ValueError for gains of another shape, and RuntimeError when entered twice.
        """
        if gains.ndim != 2 or gains.shape[1] != self._count:
            raise ValueError(
                f"The gains have shape {tuple(gains.shape)} but the model has {self._count} taps: "
                f"pass a tensor of shape (samples, {self._count})."
            )
        if self._active:
            raise RuntimeError(
                "The taps already scale a call of this model: leave that one first, or multiply "
                "both gains and scale once."
            )
        factors = self._factors(gains)
        entered: list[_ReplacedForward] = []
        kept = {name: getattr(self.model, name) for name in self._caches}
        self._active = True
        try:
            for name in kept:
                setattr(self.model, name, [])
            for block in self._blocks:
                entered.append(block)
                block.enter()
            for tapped, factor in zip(self._modules, factors, strict=True):
                entered.append(tapped)
                tapped.factor = factor
                tapped.enter()
            yield
        finally:
            for replaced in entered:
                replaced.leave()
            for name, cache in kept.items():
                setattr(self.model, name, cache)
            self._active = False

    def _factors(self, gains: Tensor) -> list[Tensor]:
        """What each module is multiplied by: [chunks, 1] or, for B samples, [B, 1, chunks, 1].

        Once per call of the whole model, for all its modules. Chunks that are no gate get 1.
        """
        if self._columns.device != gains.device:
            self._columns = self._columns.to(gains.device)
        gains = gains.to(torch.float32)
        samples = gains.shape[0]
        every = gains.new_ones(samples, self._width).index_copy(1, self._columns, gains)
        widths = [chunks * modules for chunks, modules in self._alike]
        factors: list[Tensor] = []
        for (chunks, modules), part in zip(self._alike, every.split(widths, dim=1), strict=True):
            if samples == 1:
                factors += part.view(modules, chunks, 1).unbind(0)
            else:
                factors += part.view(samples, modules, 1, chunks, 1).unbind(1)
        return factors


def _links(
    model: nn.Module, paths: Iterable[str]
) -> list[tuple[dict[str, nn.Module | None], str, nn.Module]]:
    """Each step from the model to a tapped module: its parent's children, its name, itself."""
    links: dict[str, tuple[dict[str, nn.Module | None], str, nn.Module]] = {}
    for path in paths:
        parent, names = model, path.split(".")
        for depth, name in enumerate(names, start=1):
            child = parent.get_submodule(name)
            links[".".join(names[:depth])] = (parent._modules, name, child)
            parent = child
    return list(links.values())


class _ReplacedForward:
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


class _UncompiledModule(_ReplacedForward):
    """A module that torch.compile leaves to Python."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._forward = torch.compiler.disable(self.forward)


class _TappedModule(_ReplacedForward):
    """A module whose output has its chunks multiplied by their factors."""

    def __init__(self, module: nn.Module, tap: Tap) -> None:
        super().__init__(module)
        self.chunks = tap.chunks
        self.repeats = tap.repeats
        self.axis = tap.axis
        self.rows = tap.rows
        self.tanh = tap.tanh
        self.path = tap.module
        self.factor: Tensor | None = None  # float32 during a call, shaped by GainTaps._factors

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output [..., chunks * H] with each chunk multiplied by its factor."""
        output = self.original(*args, **kwargs)
        factor = self.factor
        if factor is None:
            return output  # another pack kept this forward longer than the call
        if not isinstance(output, Tensor):
            # Trellis2's sparse tensor: the features of each voxel, and where the voxels are.
            return output.replace(self._scaled(output.feats, factor))
        return self._scaled(output, factor)

    def _scaled(self, output: Tensor, factor: Tensor) -> Tensor:
        if factor.device != output.device:
            factor = factor.to(output.device)
        if factor.ndim != 2:
            factor = self._for_rows(factor, output)
        if self.tanh:
            return TanhGates.carrying(output, factor.view(-1, self.chunks))
        if output.requires_grad:
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
        """The factors of B samples for the output's rows, which hold each sample once or more.

        [rows, 1, chunks, 1]; for a whole output, rows along its axis and 1 along the others.
        """
        samples, rows = factor.shape[0], output.shape[self.axis]
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
        if rows != samples:
            times = rows // samples
            # Not repeat_interleave, which asks the device for sizes in some versions of PyTorch.
            lie = (1, times, 1) if self.rows == INTERLEAVED else (times, 1, 1)
            factor = factor.view(samples, 1, self.chunks).repeat(*lie).view(rows, 1, -1, 1)
        if self.chunks != 1:
            return factor
        shape = [1] * output.ndim
        shape[self.axis] = rows
        return factor.view(shape)

    def leave(self) -> None:
        self.factor = None
        super().leave()
