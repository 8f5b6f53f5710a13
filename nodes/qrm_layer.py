"""One QRM as it acts on a model: what it is shown of each sample, when, and how strongly.

A call of the model holds the rows of one or several conditions: positive and negative, the areas of
a regional prompt, the members of an ensemble, in one call or in several. Each row's vectors follow
from its own prompt and noise level, so how rows are put together does not matter.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import torch

from ..calibri.vectors import Vectors
from .step_range import StepRange

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

    from ..qrm.module import Modulator

GUIDANCE = ("both", "positive only")
QRM_KEY = "calibri_qrm"


@dataclass
class _Sampling:
    """What one model keeps of a layer during one sampling."""

    # For each condition of the batch: the step its vectors are of, and they.
    vectors: dict[Any, tuple[int, Vectors]] = field(default_factory=dict)
    # Those of all conditions of the last call, which the next one often asks for again.
    together: tuple[Any, Vectors] | None = None
    # The module where the model computes, if ComfyUI has it elsewhere.
    copies: dict[torch.device, Modulator] = field(default_factory=dict)


class QRMLayer(StepRange):
    """A modulator's vectors, `strength` times as large.

    `reuse`: vectors are computed in every n-th step of the schedule and kept in those between.
    `guidance`: whether both predictions of classifier-free guidance get vectors, each of its own
    prompt, or the positive one alone.
    """

    def __init__(
        self,
        modulator: Modulator,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        reuse: int = 1,
        guidance: str = "both",
    ) -> None:
        super().__init__(start_percent, end_percent)
        self.modulator = modulator
        self.strength = strength
        self.reuse = reuse
        self.positive_only = guidance == "positive only"
        self._samplings: weakref.WeakKeyDictionary[BaseModel, _Sampling]
        self._samplings = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: dict[int, Any]) -> QRMLayer:
        """Itself, in the clones of v0.3.64, which copy their options deeply."""
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        """What its vectors depend on, by name; for a modulator without weights its class."""
        if isinstance(self.modulator, torch.nn.Module):
            return dict(self.modulator.state_dict())
        return {type(self.modulator).__qualname__: torch.zeros(0)}

    def forget(self) -> None:
        """Another sampling begins, or one has ended."""
        self._samplings.clear()

    def vectors(
        self,
        t: torch.Tensor,
        prompt: Prompt,
        entries: Sequence[int],
        options: dict[str, Any],
        model: BaseModel,
    ) -> Vectors | None:
        """The vectors [rows, …] of a call at the noise levels `t` [rows]; None where none act.

        `entries` has for each chunk of rows its condition: 0 positive, 1 negative. `options` are
        the call's transformer_options.
        """
        if not self.acts_at(t, model):
            return None
        chosen = [not self.positive_only or entry == 0 for entry in entries]
        if not any(chosen):
            return None
        sampling = self._samplings.setdefault(model, _Sampling())
        keys = _keys(options, len(t) // len(entries)) if self.reuse > 1 else None
        if keys is None:
            found = self._found(t, prompt, model, sampling, chosen)
            return found if all(chosen) else _spread(found, chosen)
        step = _step(t, options) // self.reuse
        asked = (step, tuple(keys), tuple(chosen))
        if sampling.together is not None and sampling.together[0] == asked:
            return sampling.together[1]
        stale = [
            wanted and sampling.vectors.get(key, (-1,))[0] != step
            for wanted, key in zip(chosen, keys, strict=True)
        ]
        if any(stale):
            found = self._found(t, prompt, model, sampling, stale)
            computed = found.chunk(sum(stale))
            found_keys = [key for key, is_stale in zip(keys, stale, strict=True) if is_stale]
            for key, part in zip(found_keys, computed, strict=True):
                sampling.vectors[key] = (step, part)
        if not all(stale):
            found = Vectors.cat(
                [
                    sampling.vectors[key][1] if wanted else None
                    for key, wanted in zip(keys, chosen, strict=True)
                ]
            )
        sampling.together = (asked, found)
        return found

    def _found(
        self,
        t: torch.Tensor,
        prompt: Prompt,
        model: BaseModel,
        sampling: _Sampling,
        chosen: Sequence[bool],
    ) -> Vectors:
        """The vectors of the chosen chunks' rows, computed."""
        if not all(chosen):
            chunks = torch.arange(len(t), device=t.device).chunk(len(chosen))
            rows = torch.cat([chunks[at] for at, wanted in enumerate(chosen) if wanted])
            t, prompt = t.index_select(0, rows), prompt.rows(rows)
        modulator = self._on(t.device, sampling)
        level = flow_time(t, model.model_sampling)
        found = modulator(level, prompt.tokens, prompt.mask, prompt.pooled).vectors
        return found if self.strength == 1.0 else found * self.strength

    def _on(self, device: torch.device, sampling: _Sampling) -> Modulator:
        """The module with its weights on `device`.

        ComfyUI has loaded it with the model, unless memory is very short, or the model is another
        GPU's copy.
        """
        module = self.modulator
        if not isinstance(module, torch.nn.Module):
            return module
        if _is_on(module, device):
            return module
        if device not in sampling.copies:
            sampling.copies[device] = copy.deepcopy(module).to(device)
        return sampling.copies[device]


def patcher_of(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """The module as a model that ComfyUI loads beside the one it acts on, and unloads."""
    patcher = comfy.model_patcher.ModelPatcher(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    # Copies of the model for other GPUs take copies of this one.
    patcher.cached_patcher_init = (_copied, (module,))
    return patcher


def _copied(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    return patcher_of(copy.deepcopy(module))


@dataclass(frozen=True)
class Prompt:
    """What a model call is told of its prompts, as the model gets it."""

    tokens: torch.Tensor | None  # [rows, L, C]
    mask: torch.Tensor | None  # [rows, L], not 0 where there is a token
    pooled: torch.Tensor | None  # [rows, P]

    @staticmethod
    def of_call(c_crossattn: Any, arguments: dict[str, Any], rows: int) -> Prompt:
        """The prompts among the arguments of `apply_model`; what has another shape is not seen."""
        tokens = c_crossattn if _is(c_crossattn, 3, rows) else None
        pooled = arguments.get("y") if _is(arguments.get("y"), 2, rows) else None
        mask = arguments.get("attention_mask")
        # A mask of floats may be one that is added to scores, 0 where a token is to be seen.
        if (
            tokens is None
            or not _is(mask, 2, rows)
            or mask.shape[1] != tokens.shape[1]
            or mask.is_floating_point()
        ):
            mask = None
        return Prompt(tokens, mask, pooled)

    def rows(self, index: torch.Tensor) -> Prompt:
        """Some rows of it."""
        return Prompt(
            *(
                None if part is None else part.index_select(0, index)
                for part in (self.tokens, self.mask, self.pooled)
            )
        )


def flow_time(sigma: torch.Tensor, sampling: Any) -> torch.Tensor:
    """The share of noise [rows] in 0..1: a flow model's sigma, and σ / (1 + σ) for models whose
    latents are x₀ + σ · noise, which is the same share.
    """
    if isinstance(sampling, comfy.model_sampling.CONST):
        return sigma.float()
    return (sigma / (1.0 + sigma)).float()


def _is(value: Any, dimensions: int, rows: int) -> bool:
    tensor = isinstance(value, torch.Tensor)
    return tensor and value.ndim == dimensions and value.shape[0] == rows


def _is_on(module: torch.nn.Module, device: torch.device) -> bool:
    return all(parameter.device == device for parameter in module.parameters())


def _keys(options: dict[str, Any], rows: int) -> list[Any] | None:
    """What tells each chunk's prompts from others' through all steps; None where nothing does."""
    uuids = options.get("uuids")
    if uuids is None:
        return None
    # A context window may see its own part of a prompt.
    window = getattr(options.get("context_window"), "index_list", None)
    return [(uuid, rows, None if window is None else tuple(window)) for uuid in uuids]


def _step(t: torch.Tensor, options: dict[str, Any]) -> int:
    """The schedule's step that a noise level belongs to: samplers may call the model several times
    in one step, at levels between its own and the next one's.
    """
    schedule = options.get("sample_sigmas")
    if schedule is None:
        return int(torch.iinfo(torch.int32).max * float(t.max()))  # each level is a step
    return max(0, int((schedule.to(t.device) >= t.max() * (1 - 1e-4)).sum()) - 1)


def _spread(vectors: Vectors, chosen: Sequence[bool]) -> Vectors:
    """The chosen chunks' vectors, and zeros for the others."""
    parts = iter(vectors.chunk(sum(chosen)))
    return Vectors.cat([next(parts) if wanted else None for wanted in chosen])
