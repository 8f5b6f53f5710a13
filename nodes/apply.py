"""Apply Calibri: a preset's coefficients on a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from . import sockets

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..calibri.presets import Preset


class CalibriApply(io.ComfyNode):
    """Scales a model's residual branches by a preset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriApply",
            display_name="Apply Calibri",
            category="Calibri",
            **sockets.search_aliases(
                "apply preset", "scale blocks", "block weights", "layer scale"
            ),
            description="Scales the residual branches of a diffusion transformer by a preset. "
            "Nothing is written into the weights; several presets in a row multiply.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="A diffusion transformer: FLUX, SD3.5, Qwen-Image, Wan …"
                ),
                sockets.Preset.Input("preset", tooltip="From Load Calibri Preset or Calibrate."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 is the plain model, 1 the preset as it was found.",
                ),
                *sockets.percents("preset"),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def validate_inputs(cls, start_percent: float | None, end_percent: float | None) -> bool | str:
        return sockets.check_percents(start_percent, end_percent, "preset") or True

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        preset: Preset,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(with_preset(model, preset, strength, start_percent, end_percent))


def with_preset(
    model: ModelPatcher,
    preset: Preset,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> ModelPatcher:
    """A clone of `model` on which the preset acts, as Apply Calibri's inputs say.

    Raises ValueError for percents between which there is nothing and for a model that cannot take
    the preset, PresetError for a preset of another family.
    """
    from ..calibri.presets import check_preset
    from .gain_layer import GainLayer
    from .identity import fingerprint_of
    from .patching import apply_gains, backbone_of

    wrong = sockets.check_percents(start_percent, end_percent, "preset")
    if wrong:
        raise ValueError(wrong)
    space, vectors = check_preset(preset, backbone_of(model))
    if preset.fingerprint not in ("", fingerprint_of(model)):
        logging.warning(
            "Calibri: the preset %r was found on another model of this family (%s); "
            "it may help less here.",
            preset.title,
            preset.base_model or "not named",
        )
    if strength == 0.0 and preset.guidance is None:
        return model.clone()
    layer = GainLayer(
        torch.from_numpy(space.expand(space.blend(vectors, strength)))[None],
        start_percent,
        end_percent,
        weights=_weights(preset, strength) if preset.is_ensemble else None,
        guidance=preset.guidance,
    )
    return apply_gains(model, layer)


def _weights(preset: Preset, strength: float) -> torch.Tensor:
    """The members' weights [1, M] between the plain model's (strength 0) and the preset's."""
    plain = torch.zeros(len(preset.members), dtype=torch.float64)
    plain[0] = 1.0
    if preset.guidance is not None:
        plain = torch.tensor([preset.guidance.scale, 1.0 - preset.guidance.scale])
    found = torch.tensor([member.weight for member in preset.members], dtype=torch.float64)
    return ((1.0 - strength) * plain + strength * found)[None]
