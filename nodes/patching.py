"""The one place where a ModelPatcher is touched: gains on residual branches, as a wrapper.

`apply_gains` returns a clone whose `APPLY_MODEL` wrapper scales the gates for the length of each
model call and leaves weights, other clones and other packs' patches alone. What a gain is and where
it acts is `calibri/`'s business (`backbones.py`, `taps.py`); here it only meets ComfyUI's batches.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from ..calibri.backbones import Backbone, read_backbone
from ..calibri.taps import GainTaps

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrapperExecutor

WRAPPER_KEY = "calibri"

_taps: weakref.WeakKeyDictionary[BaseModel, GainTaps] = weakref.WeakKeyDictionary()
_taps_lock = threading.Lock()  # several GPUs call wrappers of one clone from parallel threads


class GainLayer:
    """Gains [1, T] for every row of a batch, or [R, T] for R rows of their own, T being the taps.

    `gains` may be replaced between sampler runs (a search does so for each batch of candidates).
    `start_percent` and `end_percent`, 0..1 of the sampling schedule, say when the layer acts.
    """

    def __init__(
        self, gains: torch.Tensor, start_percent: float = 0.0, end_percent: float = 1.0
    ) -> None:
        self.start_percent = start_percent
        self.end_percent = end_percent
        self.gains = gains

    @property
    def gains(self) -> torch.Tensor:
        return self._gains

    @gains.setter
    def gains(self, gains: torch.Tensor) -> None:
        self._gains = gains
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def gains_at(self, device: torch.device) -> torch.Tensor:
        """The gains on `device`, copied there once."""
        if device not in self._on_device:
            self._on_device[device] = self._gains.to(device=device, dtype=torch.float32)
        return self._on_device[device]

    def acts_at(self, sigma: torch.Tensor, model: BaseModel) -> bool:
        """Whether this layer acts at the noise level `sigma` [rows], equal in all rows."""
        if self.start_percent <= 0.0 and self.end_percent >= 1.0:
            return True  # spares the device a synchronisation
        # Asked of the model in use, so that a later ModelSampling node is heeded.
        schedule = model.model_sampling
        start = float(schedule.percent_to_sigma(self.start_percent))
        end = float(schedule.percent_to_sigma(self.end_percent))
        return end <= float(sigma.max()) <= start


class GainWrapper:
    """An `APPLY_MODEL` wrapper that multiplies its layers' gains and taps the model with them."""

    def __init__(self, layers: tuple[GainLayer, ...]) -> None:
        self.layers = layers

    def __call__(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        options = {} if transformer_options is None else transformer_options
        arguments = (x, t, c_concat, c_crossattn, control, options)
        gains = self._gains(x, t, options, executor.class_obj)
        if gains is None:
            return executor(*arguments, **kwargs)
        with _taps_of(executor.class_obj).scaled(gains):
            return executor(*arguments, **kwargs)

    def _gains(
        self, x: torch.Tensor, t: torch.Tensor, options: dict[str, Any], model: BaseModel
    ) -> torch.Tensor | None:
        """The product of the acting layers, [1, T] or [rows of x, T]; None where none acts."""
        acting = [layer.gains_at(x.device) for layer in self.layers if layer.acts_at(t, model)]
        if not acting:
            return None
        # x holds one chunk of rows for each entry of cond_or_uncond: [1, 0] is uncond, then cond.
        chunks = len(options.get("cond_or_uncond") or (0,))
        rows = x.shape[0] // chunks
        product = acting[0]
        for gains in acting[1:]:
            product = product * gains
        if product.shape[0] == 1:
            return product
        if product.shape[0] != rows:
            raise ValueError(
                f"The batch has {rows} images but {product.shape[0]} sets of coefficients; "
                "sample a calibration run's model only through the Calibrate node."
            )
        return product.repeat(chunks, 1)


def diffusion_model(model: ModelPatcher) -> torch.nn.Module:
    """The DiT inside a MODEL, out of its torch.compile cover if it wears one."""
    return _uncovered(model.get_model_object("diffusion_model"))


def backbone_of(model: ModelPatcher) -> Backbone:
    """Read a MODEL's taps. Raises UnknownBackboneError for a family without an entry."""
    return read_backbone(diffusion_model(model))


def apply_gains(model: ModelPatcher, layer: GainLayer) -> ModelPatcher:
    """A clone of `model` on which `layer` acts, on top of layers applied to it before."""
    clone = model.clone()
    layers: tuple[GainLayer, ...] = ()
    for wrapper in clone.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
        layers += wrapper.layers
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, GainWrapper((*layers, layer)))
    return clone


def _uncovered(module: torch.nn.Module) -> torch.nn.Module:
    return getattr(module, "_orig_mod", module)


def _taps_of(model: BaseModel) -> GainTaps:
    """The taps of the model in use: a deep clone or another GPU's copy has its own."""
    with _taps_lock:
        module = _uncovered(model.diffusion_model)
        taps = _taps.get(model)
        if taps is None or taps.model is not module:
            taps = _taps[model] = GainTaps(module, read_backbone(module))
        return taps
