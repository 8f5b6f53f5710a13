"""PixelDiT: double blocks over patches, then blocks over the pixels of each patch. PiD decodes
latents with the same blocks, fed by a projection of the latent that is not scaled here.
"""

from __future__ import annotations

from .entry import GATES_OF_SIX, INTERLEAVED, NORMS_OF_SIX, BlockKind, Family, Modulation


def _pixel_modulation(module: str, branch: str) -> Modulation:
    """Shift, scale and gate for each pixel of a patch; the rows are the patches of all samples."""
    return Modulation(
        module,
        "image",
        {3: ((2, branch),)},
        norms={3: ((0, branch, "shift"), (1, branch, "scale"))},
        width_of="mlp.fc2",
        repeats=True,
        rows=INTERLEAVED,
    )


_KINDS = (
    BlockKind(
        name="double",
        container="patch_blocks",
        branches=(
            Modulation(
                "adaLN_modulation_img.0", "image", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}
            ),
            Modulation(
                "adaLN_modulation_txt.0", "text", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}
            ),
        ),
        unread_in_last=("text",),
    ),
    BlockKind(
        name="pixel",
        container="pixel_blocks",
        branches=(
            _pixel_modulation("adaLN_modulation_msa", "attention"),
            _pixel_modulation("adaLN_modulation_mlp", "mlp"),
        ),
    ),
)

PIXELDIT = Family(name="pixeldit", classes=("PixDiT_T2I",), lacks=("lq_proj",), kinds=_KINDS)
PID = Family(name="pid", classes=("PidNet",), needs=("lq_proj",), kinds=_KINDS)
