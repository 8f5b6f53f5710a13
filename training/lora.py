"""LoRA on a frozen model: low-rank changes of its linear layers, trained beside them.

They act by forward hooks, so that weights stay as they are, quantised ones too. Names and scale are
those of ComfyUI's own trainer: `<module>.lora_up.weight`, `.lora_down.weight` and `.alpha`, and
weight + alpha / rank · up · down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .draws import generator


class Adapter(nn.Module):
    """One layer's. It begins without effect: `up` is 0."""

    def __init__(self, inputs: int, outputs: int, rank: int, g: torch.Generator) -> None:
        super().__init__()
        self.lora_down = nn.Linear(inputs, rank, bias=False)
        self.lora_up = nn.Linear(rank, outputs, bias=False)
        with torch.no_grad():
            self.lora_down.weight.copy_(torch.randn(rank, inputs, generator=g) / inputs**0.5)
            self.lora_up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to the layer's output, in the input's precision."""
        down, up = self.lora_down.weight.to(x.dtype), self.lora_up.weight.to(x.dtype)
        out: Tensor = F.linear(F.linear(x, down), up)
        return out


class Lora:
    """Adapters of rank `rank` on the layers `paths` of `model`, scaled by `alpha` / `rank`."""

    def __init__(
        self, model: nn.Module, paths: Iterable[str], rank: int, alpha: float, seed: int
    ) -> None:
        g = generator(seed, "lora")
        self._model, self._scale, self.alpha = model, alpha / rank, alpha
        self.adapters: dict[str, Adapter] = {}
        for path in paths:
            layer = model.get_submodule(path)
            inputs, outputs = _shape(layer)
            self.adapters[path] = Adapter(inputs, outputs, rank, g)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All that is trained, by name."""
        return {
            f"{path}.{name}": value
            for path, adapter in self.adapters.items()
            for name, value in adapter.named_parameters()
        }

    def to(self, device: torch.device) -> None:
        """Move them."""
        for adapter in self.adapters.values():
            adapter.to(device)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside, they change what the model computes; what is computed again in a backward pass
        must be inside too.
        """

        def hook(adapter: Adapter) -> Any:
            def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                out: Tensor = output + self._scale * adapter(inputs[0]).to(output.dtype)
                return out

            return add

        handles = [
            self._model.get_submodule(path).register_forward_hook(hook(adapter))
            for path, adapter in self.adapters.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def tensors(self, weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """The file's: `weights` by the names of `parameters`, below `prefix`, with alphas."""
        held = {
            f"{prefix}{name}": value.detach().to("cpu", torch.float32).contiguous()
            for name, value in weights.items()
        }
        return held | {f"{prefix}{path}.alpha": torch.tensor(self.alpha) for path in self.adapters}


def linear_layers(model: nn.Module, blocks: Iterable[str]) -> list[str]:
    """The paths of all linear layers inside the modules `blocks` of `model`."""
    found = []
    for block in blocks:
        for name, module in model.get_submodule(block).named_modules():
            if isinstance(module, nn.Linear):
                found.append(f"{block}.{name}" if name else block)
    return found


def _shape(layer: nn.Module) -> tuple[int, int]:
    # Read from the numbers a linear declares: a quantised weight has another shape.
    return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
