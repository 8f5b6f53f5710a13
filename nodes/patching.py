"""The one place where a ModelPatcher is touched: gains and QRM's vectors, as wrappers.

`apply_gains` and `apply_qrm` return a clone whose `APPLY_MODEL` wrapper changes the branches for
the length of each model call and leaves weights, other clones and other packs' patches alone. What
a gain or a vector is and where it acts is `calibri/`'s business (`backbones.py`, `taps.py`); here
they only meet ComfyUI's batches.
`ensemble.py` has what several members of one preset need besides.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from ..calibri.backbones import Backbone, read_backbone
from ..calibri.families.entry import PACKED
from ..calibri.taps import GainTaps
from .ensemble import MEMBERS, WRAPPER_KEY, EnsembleWrapper, GuidanceFormula, GuiderCheck
from .gain_layer import GainLayer
from .qrm_layer import QRM_KEY, Prompt, QRMLayer, patcher_of

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrapperExecutor

    from ..calibri.vectors import Vectors
    from .ensemble import Members

_taps: weakref.WeakKeyDictionary[BaseModel, GainTaps] = weakref.WeakKeyDictionary()
_taps_lock = threading.Lock()  # several GPUs call wrappers of one clone from parallel threads


class GainWrapper:
    """An `APPLY_MODEL` wrapper that multiplies its layers' gains and taps the model with them.

    The vectors of QRMs, `qrms`, act through the same taps; those of several add up.
    """

    def __init__(self, layers: tuple[GainLayer, ...] = (), qrms: tuple[QRMLayer, ...] = ()) -> None:
        self.layers = layers
        self.qrms = qrms

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
        entries: list[int] = list(options.get("cond_or_uncond") or (0,))
        members: Members | None = options.get(MEMBERS)
        gains = self._gains(x, t, entries, members, executor.class_obj)
        if members is not None:
            # Everybody else is shown the positions they know: 0 positive, 1 negative.
            entries = [members.condition(entry) for entry in entries]
            options = {**options, "cond_or_uncond": entries}
        arguments = (x, t, c_concat, c_crossattn, control, options)
        vectors: Vectors | None = None
        if self.qrms:
            prompt = Prompt.of_call(c_crossattn, kwargs, x.shape[0])
            for qrm in self.qrms:
                found = qrm.vectors(t, prompt, entries, options, executor.class_obj)
                if found is not None:
                    vectors = found if vectors is None else vectors + found
        if gains is None and vectors is None:
            return executor(*arguments, **kwargs)
        with _taps_of(executor.class_obj).scaled(gains, vectors):
            return executor(*arguments, **kwargs)

    def _gains(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        entries: list[int],
        members: Members | None,
        model: BaseModel,
    ) -> torch.Tensor | None:
        """The product of the layers, [1, T] or [rows of x, T]; None where surely none acts.

        x holds one chunk of rows for each entry: [1, 0] is uncond, then cond.
        """
        shared: torch.Tensor | None = None  # [1, T] or [chunks, rows of a chunk, T]
        for layer in self.layers:
            gains = layer.gains_at(x.device)
            if layer.has_members:
                # Its EnsembleWrapper tells members apart where it acts, and only there.
                if members is None and not layer.acts_at(t, model):
                    continue
            elif not layer.acts_always:
                # A gain of 1 changes no bit, so nobody has to wait until the device knows.
                gains = torch.where(layer.within_range(t, model), gains, 1.0)
            if layer.is_ensemble:
                chosen = [_member(layer, entry, members) for entry in entries]
                # Chunks of one member share its row: packed families take no more than one.
                gains = gains[:, chosen[:1] if len(set(chosen)) == 1 else chosen].transpose(0, 1)
            else:
                gains = gains.transpose(0, 1)
            shared = gains if shared is None else shared * gains
        if shared is None:
            return None
        chunks, rows = len(entries), x.shape[0] // len(entries)
        if shared.shape[:2] == (1, 1):
            return shared[0]
        if shared.shape[1] not in (1, rows):
            raise ValueError(
                f"The batch has {rows} images but {shared.shape[1]} sets of coefficients; "
                "sample a calibration run's model only through the Calibrate node."
            )
        return shared.expand(chunks, rows, -1).reshape(chunks * rows, -1)


def _member(layer: GainLayer, entry: int, members: Members | None) -> int:
    """Whose gains the chunk of this entry of `cond_or_uncond` gets."""
    if layer.guidance is not None:
        return min(entry, 1)
    if members is None:
        raise RuntimeError(
            "The model was called without ComfyUI's calc_cond_batch, where the members of a "
            "Calibri ensemble are told apart: use ComfyUI's own guiders and samplers, or a preset "
            "of one member."
        )
    return members.member(entry)


def diffusion_model(model: ModelPatcher) -> torch.nn.Module:
    """The DiT inside a MODEL, out of its torch.compile cover if it wears one."""
    return _uncovered(model.get_model_object("diffusion_model"))


def backbone_of(model: ModelPatcher) -> Backbone:
    """Read a MODEL's taps. Raises UnknownBackboneError for a family without an entry."""
    return read_backbone(diffusion_model(model))


def has_gains(model: ModelPatcher) -> bool:
    """Whether Apply Calibri is on a MODEL already."""
    return bool(_applied(model).layers)


def apply_gains(model: ModelPatcher, layer: GainLayer) -> ModelPatcher:
    """A clone of `model` on which `layer` acts, on top of layers applied to it before.

    Raises ValueError where both `layer` and one before it are ensembles: a sum of sums has no
    weights of its own.
    """
    before = _applied(model)
    clone = _with_wrapper(model, GainWrapper((*before.layers, layer), before.qrms))
    if layer.is_ensemble:
        if any(other.is_ensemble for other in before.layers):
            raise ValueError(
                "The model has a preset with weighted members already, and two of them cannot be "
                "stacked: remove one Apply Calibri, or use a preset of one member there."
            )
        _add_ensemble(clone, layer)
    return clone


def apply_qrm(model: ModelPatcher, layer: QRMLayer) -> ModelPatcher:
    """A clone of `model` on which the vectors of `layer` act, on top of what was applied before."""
    before = _applied(model)
    clone = _with_wrapper(model, GainWrapper(before.layers, (*before.qrms, layer)))
    # Each sampling begins with nothing kept of another one.
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, QRM_KEY, _Forgetting(layer))
    if isinstance(layer.modulator, torch.nn.Module):
        others = clone.get_additional_models_with_key(QRM_KEY)
        clone.set_additional_models(QRM_KEY, [*others, patcher_of(layer.modulator)])
    return clone


class _Forgetting:
    """An `OUTER_SAMPLE` wrapper after which a QRM keeps nothing."""

    def __init__(self, layer: QRMLayer) -> None:
        self.layer = layer

    def __call__(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.layer.forget()
        try:
            return executor(*args, **kwargs)
        finally:
            self.layer.forget()


def _applied(model: ModelPatcher) -> GainWrapper:
    """What is on a MODEL, in one wrapper."""
    found = model.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    layers = tuple(layer for wrapper in found for layer in wrapper.layers)
    return GainWrapper(layers, tuple(qrm for wrapper in found for qrm in wrapper.qrms))


def _with_wrapper(model: ModelPatcher, wrapper: GainWrapper) -> ModelPatcher:
    clone = model.clone()
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, wrapper)
    return clone


def _add_ensemble(clone: ModelPatcher, layer: GainLayer) -> None:
    packed = any(tap.rows == PACKED for tap in backbone_of(clone).taps)
    if layer.guidance is None:
        wrapper = EnsembleWrapper(layer, in_turn=packed)
        clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, WRAPPER_KEY, wrapper)
        return
    if packed:
        raise ValueError(
            "The preset calibrates classifier-free guidance, and this model computes both "
            "conditions together, where they cannot have coefficients of their own: use a preset "
            "without guidance."
        )
    if "sampler_cfg_function" in clone.model_options:
        raise ValueError(
            "Another node before Apply Calibri has put its own CFG formula on the model, which the "
            "preset's weights would replace: remove that node, or use a preset without guidance."
        )
    formula = GuidanceFormula(layer)
    clone.set_model_sampler_cfg_function(formula, disable_cfg1_optimization=True)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, GuiderCheck(formula))


def _uncovered(module: torch.nn.Module) -> torch.nn.Module:
    return getattr(module, "_orig_mod", module)


def _taps_of(model: BaseModel) -> GainTaps:
    """The taps of the model in use: a deep clone or another GPU's copy has its own."""
    with _taps_lock:
        module = _uncovered(model.diffusion_model)
        taps = _taps.get(model)
        if taps is None or taps.model is not module or not taps.still_fit():
            taps = _taps[model] = GainTaps(module, read_backbone(module))
        return taps
