"""SeedVR2: video and text tokens of all samples in one sequence, the early blocks with weights for
each, the late ones with weights for both.

Gates are a vector of the block plus a modulation that all blocks share, so branches are scaled at
their outputs. The model pairs the halves of a batch with each other's text (positive with negative)
before it packs them: which tokens are whose cannot be told from inside, and a call has one set of
gains.
"""

from __future__ import annotations

from .entry import PACKED, BlockKind, Family, Output

SEEDVR2 = Family(
    name="seedvr2",
    classes=("NaDiT",),
    needs=("vid_in.proj", "emb_in.proj_hid", "blocks.0.attn.proj_out"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("attn.proj_out.vid", "attention", "image", optional=True, rows=PACKED),
                Output("mlp.vid", "mlp", "image", optional=True, rows=PACKED),
                Output("attn.proj_out.txt", "attention", "text", optional=True, rows=PACKED),
                Output("mlp.txt", "mlp", "text", optional=True, rows=PACKED),
                Output("attn.proj_out.all", "attention", "joint", optional=True, rows=PACKED),
                Output("mlp.all", "mlp", "joint", optional=True, rows=PACKED),
            ),
            unread_in_last=("text",),
        ),
    ),
)
