"""HiDream-O1: a language model's decoder that predicts pixels, for text and image in one sequence.

Its layers have no gates. The text before the image sees no timestep, so the model keeps its keys
and values from the first step on: with gains they are others.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output

HIDREAM_O1 = Family(
    name="hidream-o1",
    classes=("HiDreamO1Transformer",),
    needs=("t_embedder1", "x_embedder.proj1"),
    caches=("_kv_cache_entries",),
    kinds=(
        BlockKind(
            name="layer",
            container="language_model.layers",
            branches=(
                Output("self_attn.o_proj", "attention", "joint"),
                Output("mlp", "mlp", "joint"),
            ),
        ),
    ),
)
