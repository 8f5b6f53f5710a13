"""Every list of blocks in every DiT belongs to its family's entry, or has a reason not to.

The other tests ask the entry where the blocks are: of a list that it misses they would see nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.families import FAMILIES

from .dits.case import DitCase

pytestmark = pytest.mark.oldest

# Family -> list -> why no coefficient belongs there.
PROMPT = "reads the prompt alone, before the picture's blocks"
CONDITION = "encodes a condition, before the picture's blocks"
PAINTER = "paints the pixels of a patch after the blocks; no transformer block"
NO_BLOCKS = "no residual blocks"
LEFT_OUT = {
    "ace-step": {"lyric_encoder.encoders": CONDITION, "projectors": NO_BLOCKS},
    "ace-step-1.5": {
        "encoder.encoder.lyric_encoder.layers": CONDITION,
        "encoder.encoder.timbre_encoder.layers": CONDITION,
        "tokenizer.attention_pooler.layers": CONDITION,
        "tokenizer.quantizer.layers": NO_BLOCKS,
        "detokenizer.layers": CONDITION,
    },
    "anima": {"llm_adapter.blocks": PROMPT},
    "chroma": {
        "distilled_guidance_layer.layers": "makes the gates of all blocks; adds to no picture",
        "distilled_guidance_layer.norms": NO_BLOCKS,
        "nerf_blocks": PAINTER,
    },
    "cosmos": {"t_embedder": NO_BLOCKS},
    "hidream": {"caption_projection": NO_BLOCKS},
    "hidream-o1": {"visual.blocks": CONDITION},
    "krea2": {"txtfusion.layerwise_blocks": PROMPT, "txtfusion.refiner_blocks": PROMPT},
    "ltx-2": {
        "audio_embeddings_connector.transformer_1d_blocks": PROMPT,
        "video_embeddings_connector.transformer_1d_blocks": PROMPT,
    },
    "minimax-h3": {"token_refiner.blocks": PROMPT},
    "pid": {"lq_proj.gate_modules": NO_BLOCKS},
    "triposplat": {
        "noise_repo_layers": NO_BLOCKS,
        "context_repo_layers": NO_BLOCKS,
        "repo_layers": NO_BLOCKS,
    },
    "wan": {
        "audio_injector.injector_adain_layers": NO_BLOCKS,
        "motion_encoder.enc.net_app.convs": CONDITION,
        "music_encoder": CONDITION,
    },
    "z-image": {"dec_net.res_blocks": PAINTER},
}
# What a list of blocks does not hold: single layers.
LAYERS = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def uncovered(model: nn.Module) -> Iterator[str]:
    """Lists of modules outside the entry's containers and the blocks in these."""
    family = read_backbone(model).family
    covered = [
        f"{kind.container}." for entry in FAMILIES if entry.name == family for kind in entry.kinds
    ]
    for path, module in model.named_modules():
        inside = any(f"{path}.".startswith(container) for container in covered)
        if inside or not isinstance(module, nn.ModuleList):
            continue
        if not all(isinstance(child, LAYERS) for child in module):
            yield path


def test_no_list_of_blocks_is_forgotten(case: DitCase, model: nn.Module) -> None:
    reasons = LEFT_OUT.get(case.family, {})
    assert [path for path in uncovered(model) if path not in reasons] == []
