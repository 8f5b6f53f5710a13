"""A preset as a LoRA-style file, for ComfyUI without this pack and for other programs."""

from __future__ import annotations

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
            category="Calibri/presets",
            **sockets.search_aliases("export lora", "bake", "merge into model", "DoRA"),
            description="Writes a preset as an ordinary LoRA file for this model, to models/loras. "
            "The stock Load LoRA applies it, without this pack; it fits this base model only.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model as it was loaded, before any LoRA."
                ),
                sockets.Preset.Input("preset", tooltip="Of one member; no ensemble."),
                sockets.filename_prefix("calibri"),
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

        from ..calibri.bake import save_patch

        tensors = _patch(model, preset)
        path = folders.new_lora_path(filename_prefix)
        folders.make_folder(path.parent)
        save_patch(path, tensors, preset)
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
    import torch
    from comfy.model_patcher import get_key_weight

    from ..calibri.bake import PREFIX, preset_patch
    from .patching import backbone_of, diffusion_model, has_gains

    if has_gains(model):
        raise ValueError(
            "model has a preset by Apply Calibri already, which would act beside the patch: "
            "connect the model from before Apply Calibri."
        )

    def read(path: str) -> Tensor:
        weight, _, convert = get_key_weight(model.model, PREFIX + path)
        # While another clone's LoRA is in the weights, the model's own are kept here.
        kept = model.backup.get(PREFIX + path)
        weight = weight if kept is None else kept.weight
        if type(weight) in (torch.Tensor, torch.nn.Parameter):
            weight = weight.float()  # v0.3.64 multiplies fp8 by its scale, which CPUs cannot
        return weight if convert is None else convert(weight, inplace=False)

    tensors = preset_patch(preset, diffusion_model(model), backbone_of(model), read)
    for key in model.patches:
        if any(name.startswith(key.rpartition(".")[0] + ".") for name in tensors):
            raise ValueError(
                f"model has a LoRA or other patch on {key}, which the preset scales, and the file "
                "would set the plain weights' norms there: connect the model from before the "
                "LoRA, and apply the LoRA after the patch."
            )
    return tensors
