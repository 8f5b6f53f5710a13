"""Mochi: joint blocks of video and text whose branches end with a norm and a gate behind a tanh.

The norm is no module, so the gates are where a branch can be scaled. The last block has no text
branches.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Modulation

GATES_OF_FOUR = ((1, "attention"), (3, "mlp"))  # scale, gate, scale, gate

MOCHI = Family(
    name="mochi",
    classes=("AsymmDiTJoint",),
    needs=("t5_y_embedder", "t5_yproj"),
    kinds=(
        BlockKind(
            name="joint",
            container="blocks",
            branches=(
                Modulation("mod_x", "image", {4: GATES_OF_FOUR}, tanh=True),
                # The text is narrower than the video, whose timestep embedding modulates both.
                Modulation("mod_y", "text", {4: GATES_OF_FOUR}, width_of="mlp_y.w2", tanh=True),
            ),
            unread_in_last=("text",),
        ),
    ),
)
