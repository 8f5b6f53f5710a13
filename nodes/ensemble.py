"""Calibri ensembles in ComfyUI's sampling: several sets of gains for one prediction.

A preset of M members predicts Σ w_m v(x, t, c; s_m) (the paper's section 3.4). The members become
further entries of the cond list in CALC_COND_BATCH, so area conditioning, masks, ControlNet, hooks,
memory splitting and several GPUs stay ComfyUI's: entry e of `cond_or_uncond` is condition
e % K of member e // K, with K conditions in the list. `patching.py` gives each chunk of rows its
member's gains and everybody else the positions they know. Classifier-free guidance with calibrated
members is the case M = 2 whose members have a condition each; `calibri/ensemble.py` has the sums.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ..calibri.ensemble import combine, combine_guidance

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.patcher_extension import WrapperExecutor

    from .gain_layer import GainLayer

WRAPPER_KEY = "calibri"
# Wrappers of the model that do not care whose rows are whose.
HARMLESS_WRAPPERS = frozenset({WRAPPER_KEY, "torch.compile"})
# In transformer_options: which member each entry of `cond_or_uncond` belongs to.
MEMBERS = "calibri_members"

Conditions = list[dict[str, Any]]


@dataclass(frozen=True)
class Members:
    """Entry e of `cond_or_uncond` is condition e % K of member `order[e // K]`."""

    order: tuple[int, ...]
    conditions: int  # K

    def condition(self, entry: int) -> int:
        return entry % self.conditions

    def member(self, entry: int) -> int:
        return self.order[entry // self.conditions]


class EnsembleWrapper:
    """A `CALC_COND_BATCH` wrapper: each condition's prediction is that of the whole ensemble.

    `in_turn`: the model's samples cannot have gains of their own, so members never share a batch.
    """

    def __init__(self, layer: GainLayer, in_turn: bool = False) -> None:
        self.layer = layer
        self.in_turn = in_turn

    def __call__(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: Sequence[Conditions | None],
        x_in: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> list[torch.Tensor]:
        if not self.layer.acts_at(timestep, model):
            return executor(model, conds, x_in, timestep, model_options)
        order = self.layer.live_members
        together = not self.in_turn and _others_know_no_members(model_options)
        parts = [order] if together else [(m,) for m in order]
        predictions: dict[int, list[torch.Tensor]] = {}
        for part in parts:
            entries = [_of_member(condition, m) for m in part for condition in conds]
            options = _with_members(model_options, Members(part, len(conds)))
            found = executor(model, entries, x_in, timestep, options)
            for position, m in enumerate(part):
                predictions[m] = found[position * len(conds) : (position + 1) * len(conds)]
        base = _base(model, x_in, timestep)
        weights = self.layer.weights_at(x_in.device)
        return [
            # A condition that is not there (the negative one at cfg 1) is not combined either.
            predictions[order[0]][k]
            if condition is None
            else combine(base, [predictions[m][k] for m in order], weights[:, list(order)])
            for k, condition in enumerate(conds)
        ]


class GuidanceFormula:
    """A `sampler_cfg_function`: a CFG preset's weights stand in for the CFG scale."""

    def __init__(self, layer: GainLayer) -> None:
        self.layer = layer

    def __deepcopy__(self, memo: dict[int, Any]) -> GuidanceFormula:
        """Itself, in the clones of v0.3.64, which copy their options deeply."""
        return self

    def __call__(self, args: dict[str, Any]) -> torch.Tensor:
        model, x, sigma = args["model"], args["input"], args["sigma"]
        layer = self.layer
        predictions = _base(model, x, sigma), args["cond_denoised"], args["uncond_denoised"]
        rescale = layer.guidance is not None and layer.guidance.rescale
        combined = combine_guidance(*predictions, layer.weights_at(x.device), rescale=rescale)
        if not layer.acts_always:
            plain = layer.plain_weights_at(x.device)
            combined = torch.where(
                layer.within_range(sigma, model),
                combined,
                combine_guidance(*predictions, plain, rescale=False),
            )
        return x - combined


class GuiderCheck:
    """An `OUTER_SAMPLE` wrapper that refuses, before sampling, guiders without plain CFG.

    Others get the preset's guidance scale in place of the guider's cfg, which the preset ignores:
    nodes that work on guidance (APG, CFG-Zero*) reckon with it.
    """

    def __init__(self, formula: GuidanceFormula) -> None:
        self.formula = formula

    def __call__(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> torch.Tensor:
        guider = executor.class_obj
        if type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise:
            raise ValueError(
                f"The guider {type(guider).__name__} has a guidance formula of its own, and the "
                "preset calibrates classifier-free guidance: use CFGGuider or KSampler, or a "
                "preset without guidance."
            )
        if not guider.conds.get("negative"):
            raise ValueError(
                f"The guider {type(guider).__name__} has no negative conditioning, and the preset "
                "calibrates classifier-free guidance with it: use CFGGuider or KSampler with a "
                "negative prompt (it may be empty), or a preset without guidance."
            )
        if guider.model_options.get("sampler_cfg_function") is not self.formula:
            raise ValueError(
                "Another node has put its own CFG formula on the model after Apply Calibri, and "
                "the preset's weights would be ignored: remove that node, or use a preset without "
                "guidance."
            )
        assert self.formula.layer.guidance is not None
        cfg, guider.cfg = guider.cfg, self.formula.layer.guidance.scale
        try:
            return executor(*args, **kwargs)
        finally:
            guider.cfg = cfg  # a guider is a node's output, and may serve other prompts


def _of_member(condition: Conditions | None, member: int) -> Conditions | None:
    """A condition's entries for another member: under ids of their own, because packs that cache
    between steps know a prediction by them.
    """
    if condition is None or member == 0:
        return condition
    return [
        {**entry, "uuid": uuid.uuid5(entry["uuid"], str(member))} if "uuid" in entry else entry
        for entry in condition
    ]


def _with_members(model_options: dict[str, Any], members: Members) -> dict[str, Any]:
    options = {**model_options.get("transformer_options", {}), MEMBERS: members}
    return {**model_options, "transformer_options": options}


def _others_know_no_members(model_options: dict[str, Any]) -> bool:
    """Whether nobody else looks at the batch's conditions by position: then members share it."""
    if "model_function_wrapper" in model_options:
        return False
    options = model_options.get("transformer_options", {})
    if any(options.get("patches", {}).values()) or any(options.get("patches_replace", {}).values()):
        return False
    wrappers = options.get("wrappers", {})
    return not any(
        found and not _is_harmless(key, options)
        for kind in (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
        for key, found in wrappers.get(kind, {}).items()
    )


def _is_harmless(key: str, transformer_options: dict[str, Any]) -> bool:
    if key == "easycache":
        # It knows predictions by their uuids; v0.3.64's adds those of a batch to each other.
        return hasattr(transformer_options.get("easycache"), "can_apply_cache_diff")
    return key in HARMLESS_WRAPPERS


def _base(model: BaseModel, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The denoised latent of a prediction of 0: where a sum of predictions starts."""
    return model.model_sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
