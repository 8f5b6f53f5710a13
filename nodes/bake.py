"""A preset as a LoRA-style file, for ComfyUI without this pack and for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..calibri.presets import Preset


class CalibriSaveWeightPatch(io.ComfyNode):
    """Writes a preset as a file that the stock LoraLoader applies, never over another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSaveWeightPatch",
            display_name="Save as Weight Patch",
            category="Calibri",
            description="Writes a preset as an ordinary LoRA file for this model, to models/loras. "
            "The stock Load LoRA applies it, without this pack; it fits this base model only.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model as it was loaded, before any LoRA."
                ),
                sockets.Preset.Input("preset", tooltip="Of one member; no ensemble."),
                io.String.Input(
                    "filename_prefix",
                    default="calibri",
                    tooltip="The file's name before its number; 'folder/name' makes a folder.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the patch in its weights: for Save Checkpoint.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return folders.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, model: ModelPatcher, preset: Preset, filename_prefix: str) -> io.NodeOutput:
        import comfy.sd
        import comfy.utils

        tensors = _patch(model, preset)
        path = folders.new_lora_path(filename_prefix)
        folders.make_folder(path.parent)
        _save(path, tensors, preset)
        text = (
            f"Saved as {path} ({path.stat().st_size / 1e6:.1f} MB). Load it with Load LoRA on the "
            "same base model, before other LoRAs."
        )
        show_on_node(cls.hidden, text)
        # Read back: what goes on is what the file says.
        patched, _ = comfy.sd.load_lora_for_models(
            model, None, comfy.utils.load_torch_file(str(path), safe_load=True), 1.0, 0.0
        )
        return io.NodeOutput(patched, ui={"text": (text,)})


def _patch(model: ModelPatcher, preset: Preset) -> dict[str, Tensor]:
    """The preset's LoRA tensors; ValueError where the preset or the model cannot be baked."""
    from comfy.model_patcher import get_key_weight

    from ..calibri.bake import PREFIX, BakeError, weight_patch
    from ..calibri.presets import check_preset
    from .patching import backbone_of, diffusion_model

    if preset.is_ensemble:
        raise BakeError(
            f"The preset has {len(preset.members)} members, whose predictions are summed, and one "
            "set of weights makes one prediction: use it with Apply Calibri."
        )
    backbone = backbone_of(model)
    space, vectors = check_preset(preset, backbone)

    def read(path: str) -> Tensor:
        weight, _, convert = get_key_weight(model.model, PREFIX + path)
        return weight if convert is None else convert(weight, inplace=False)

    tensors = weight_patch(diffusion_model(model), backbone, space.expand(vectors)[0], read)
    if not tensors:
        raise BakeError(
            "The preset's coefficients are all 1, so there is nothing to write: choose another."
        )
    return tensors


def _save(path: Path, tensors: dict[str, Tensor], preset: Preset) -> None:
    from safetensors.torch import save

    from ..calibri.atomic_file import save_atomically

    told = {
        "title": preset.title,
        "family": preset.family,
        "granularity": preset.granularity,
        "base_model": preset.base_model,
        "licence": preset.licence,
        "fingerprint": preset.fingerprint,
        "fits": "this base model only: the file holds the norms of its weights' rows",
    }
    data = save(tensors, {"calibri_weight_patch": json.dumps(told)})
    save_atomically(path, data, "weight patch")
