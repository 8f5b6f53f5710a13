"""Trellis2 and Pixal3D: all their stages, one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

VOXELS = (4, 3, 5)  # of each sample


def projections(channels: int, structure: int) -> dict[str, Any]:
    """Pixal3D's arguments: each voxel also sees the picture's features where it projects to."""
    arguments: dict[str, Any] = {}
    for stage in ("structure", "shape", "texture"):
        arguments[f"image_attn_mode_{stage}"] = "proj"
        arguments[f"proj_in_channels_{stage}"] = structure if stage == "structure" else channels
    return arguments


def make(projected: bool = False) -> nn.Module:
    """Two blocks a stage. The structure has 4x4x4 tokens of 512 channels for the 16x16x16 of 8 that
    the class takes.
    """
    from comfy.ldm.trellis2.model import SparseStructureFlowModel, Trellis2

    config: dict[str, Any] = {
        "out_channels": 8,
        "model_channels": 48,
        "cond_channels": 16,
        "num_blocks": 2,
        "num_heads": 2,
        "share_mod": True,
        "qk_rms_norm": True,
        "qk_rms_norm_cross": True,
        "operations": OPERATIONS,
    }
    extra = projections(6, 6) if projected else {}
    model = Trellis2(resolution=4, in_channels=8, init_txt_model=True, **config, **extra)
    config = {**config, "in_channels": 512, "out_channels": 512}
    if projected:
        config |= {"image_attn_mode": "proj", "proj_in_channels": 6}
    model.structure_model = SparseStructureFlowModel(resolution=4, **config)
    return randomised(model)


def make_full(**changes: Any) -> nn.Module:
    from comfy.ldm.trellis2.model import Trellis2

    config = {"resolution": 64, "init_txt_model": True, "device": "meta", **changes}
    return Trellis2(operations=OPERATIONS, **config)


def call(model: nn.Module, rows: slice) -> Tensor:
    """The predictions of the four stages, flat, for samples of 4, 3 and 5 voxels."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    structure, sparse, context = draw(3, 32, 16, 16, 16), draw(3, 8, max(VOXELS), 1), draw(3, 5, 16)
    places, shape = torch.randint(0, 4, (3, max(VOXELS), 3), generator=generator), draw(3, 5, 8)
    views, seen = draw(3, 64, 6), draw(3, 5, 6)
    samples = list(range(3))[rows]
    coords = torch.cat(
        [
            torch.cat((torch.full((VOXELS[i], 1), row), places[i, : VOXELS[i]]), dim=1)
            for row, i in enumerate(samples)
        ]
    )
    arguments: dict[str, Any] = {
        "embeds": context[rows],
        "trellis2_coords": coords,
        "trellis2_coord_counts": torch.tensor([VOXELS[i] for i in samples]),
        "trellis2_shape_slat": torch.cat([shape[i, : VOXELS[i]] for i in samples]),
        "trellis2_proj_feats": torch.cat([seen[i, : VOXELS[i]] for i in samples]),
    }
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    outputs = [
        model(
            structure[rows],
            timestep,
            context[rows],
            embeds=context[rows],
            trellis2_proj_feats=views[rows],
        )
    ]
    for stage in ("shape_generation_512", "shape_generation", "texture_generation"):
        outputs.append(
            model(
                sparse[rows],
                timestep,
                context[rows],
                trellis2_generation_mode=stage,
                **arguments,
            )
        )
    return torch.cat([output.flatten(1) for output in outputs], dim=1)


CASES = (
    DitCase(
        name="Trellis2",
        family="trellis2",
        make=make,
        call=call,
        sizes={"Trellis2": make_full},
        one_gain_for_all="the voxels of all samples are one list",
        note="four networks, one for each stage; with several gains only the structure can be made",
    ),
    DitCase(
        name="Pixal3D",
        family="trellis2",
        make=lambda: make(projected=True),
        call=call,
        sizes={"Pixal3D": lambda: make_full(**projections(2048, 1024))},
        one_gain_for_all="the voxels of all samples are one list",
    ),
)
