"""Hunyuan3D 2 and 2.1, TripoSplat, Trellis2: shapes as sets of latent tokens or voxels."""

from __future__ import annotations

from .entry import PACKED, TILED, BlockKind, Family, Output
from .flux import FLUX

# FLUX's blocks; the text is the picture of the object.
HUNYUAN_3D_2 = Family(
    name="hunyuan3d-2",
    classes=("Hunyuan3Dv2",),
    needs=("latent_in", "cond_in"),
    kinds=FLUX.kinds,
)

# Of two samples or more, ComfyUI's class pairs one half with the other half's conditions and swaps
# the predictions back: what it computes in a row is not the prediction that it returns there.
HUNYUAN_3D_2_1 = Family(
    name="hunyuan3d-2.1",
    classes=("HunYuanDiTPlain",),
    needs=("x_embedder", "t_embedder.mlp"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("attn1.out_proj", "attention", "shape", rows=PACKED),
                Output("attn2.out_proj", "cross_attention", "shape", rows=PACKED),
                Output("mlp.fc2", "mlp", "shape", rows=PACKED, optional=True),
                # The last blocks have a mixture of experts in its place.
                Output("moe", "mlp", "shape", rows=PACKED, optional=True),
            ),
        ),
    ),
)


def _branches(stream: str) -> tuple[Output, Output]:
    return Output("attn.out", "attention", stream), Output("mlp.mlp.2", "mlp", stream)


TRIPOSPLAT = Family(
    name="triposplat",
    classes=("LatentSeqMMFlowModel",),
    needs=("cam_refiner", "adaLN_modulation.1"),
    kinds=(
        BlockKind("noise_refiner", "noise_refiner", _branches("shape")),
        BlockKind("context_refiner", "context_refiner", _branches("image")),
        BlockKind("block", "blocks", _branches("joint")),
    ),
)


def _stage(name: str, container: str, rows: str) -> BlockKind:
    return BlockKind(
        name=name,
        container=container,
        branches=(
            Output("self_attn", "attention", "voxel", rows=rows),
            Output("cross_attn", "cross_attention", "voxel", rows=rows),
            Output("mlp", "mlp", "voxel", rows=rows),
        ),
        optional=True,
    )


# Four networks, each for a stage of its own; a checkpoint may hold only some of them. The later
# stages see the occupied voxels of all samples as one list. Pixal3D's cross-attention ends with a
# second projection, of the picture's features at each voxel.
TRELLIS_2 = Family(
    name="trellis2",
    classes=("Trellis2",),
    kinds=(
        _stage("structure", "structure_model.blocks", TILED),
        _stage("shape_512", "img2shape_512.blocks", PACKED),
        _stage("shape", "img2shape.blocks", PACKED),
        _stage("texture", "shape2txt.blocks", PACKED),
    ),
)
