"""Gains on a backbone's taps for the length of a model call, one set of gains per sample.

For the call, each tapped module's `forward` is replaced by one that multiplies the module's output
or chunks of it, and adds QRM's vectors (`tapped_module.py`). Nothing is written into weights, so
LoRAs, offloaded and quantised weights are untouched, and `torch.compile` sees the change, which it
does not for forward hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .backbones import Backbone
from .tapped_module import ReplacedForward, TappedModule, UncompiledModule
from .vectors import Vectors


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
        self._modules: list[TappedModule] = []
        columns = [0] * self._count  # for each tap, its column among all modules' chunks
        self._width = 0
        for chunks, paths in modules_of.items():
            for path in paths:
                for position in taps_of[path]:
                    columns[position] = self._width + backbone.taps[position].chunk
                tap = backbone.taps[taps_of[path][0]]
                self._modules.append(
                    TappedModule(
                        model.get_submodule(path),
                        path,
                        tap.chunks,
                        tap.axis,
                        tap.rows,
                        tap.repeats,
                        tap.tanh,
                    )
                )
                self._width += chunks
        self._alike = [(chunks, len(paths)) for chunks, paths in modules_of.items()]
        # Compiled code that is handed a TanhGates applies its gains twice.
        blocks = {tap.module.rpartition(".")[0] for tap in backbone.taps if tap.tanh}
        self._blocks = [UncompiledModule(model.get_submodule(path)) for path in sorted(blocks)]
        self._columns = torch.tensor(columns)
        self._links = _links(model, taps_of)
        self._by_path = {tapped.path: tapped for tapped in self._modules}
        self._active = False

    def still_fit(self) -> bool:
        """Whether the modules are still the model's: another pack may have put in its own."""
        return all(children.get(name) is child for children, name, child in self._links)

    @contextmanager
    def scaled(self, gains: Tensor | None, vectors: Vectors | None = None) -> Iterator[None]:
        """Within it, calls of the model have each branch multiplied by its gain.

        `gains` is [B, T], a row per sample and a column per tap, on the device the model computes
        on; None for none. B is 1, or the number of samples in a call; a tapped tensor may hold each
        sample several times over (at another timestep, or once per frame). With `vectors`, which
        may also name adaLN linears without a tap, a module's output becomes
        `gain * (output * (1 + scale) + add)`; gradients reach them. A gain of 1 and vectors of 0
        change no bit: the result is formed in float32 or better and rounded to the output's dtype.

        Raises ValueError for gains or vectors of another shape and vectors for a module that the
        model lacks or whose gates pass through tanh, and RuntimeError when entered twice.
        """
        if gains is not None and (gains.ndim != 2 or gains.shape[1] != self._count):
            raise ValueError(
                f"The gains have shape {tuple(gains.shape)} but the model has {self._count} taps: "
                f"pass a tensor of shape (samples, {self._count})."
            )
        if self._active:
            raise RuntimeError(
                "The taps already scale a call of this model: leave that one first, or multiply "
                "both gains and scale once."
            )
        factors = None if gains is None else self._factors(gains)
        changed = [] if vectors is None else [self._module(p, vectors) for p in vectors.paths]
        entered: list[ReplacedForward] = []
        kept = {name: getattr(self.model, name) for name in self._caches}
        self._active = True
        try:
            for name in kept:
                setattr(self.model, name, [])
            for block in self._blocks if factors is not None else ():
                entered.append(block)
                block.enter()
            if factors is not None:
                for tapped, factor in zip(self._modules, factors, strict=True):
                    entered.append(tapped)
                    tapped.gain = factor
                    tapped.enter()
            for tapped in changed:
                assert vectors is not None
                if tapped.gain is None:
                    entered.append(tapped)
                    tapped.enter()
                tapped.change(vectors.scale.get(tapped.path), vectors.add.get(tapped.path))
            yield
        finally:
            for replaced in entered:
                replaced.leave()
            for name, cache in kept.items():
                setattr(self.model, name, cache)
            self._active = False

    def _module(self, path: str, vectors: Vectors) -> TappedModule:
        """The module of that path, made for vectors alone where it has no tap."""
        for vector in (vectors.scale.get(path), vectors.add.get(path)):
            if vector is None:
                continue
            if path not in self._by_path and vector.ndim == 3:
                try:
                    module = self.model.get_submodule(path)
                except AttributeError:
                    break
                self._by_path[path] = TappedModule(module, path, vector.shape[1])
                self._links += _links(self.model, [path])
            tapped = self._by_path.get(path)
            if tapped is None or tapped.tanh or vector.shape[1:-1] != (tapped.chunks,):
                break
            if tapped.chunks == 1 and path in vectors.add:
                break
        else:
            return self._by_path[path]
        raise ValueError(
            f"The vectors for {path} do not fit this model: pass those of its own layout, "
            "[samples, chunks, width] for each linear."
        )

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
