"""Token k of a block is the picture's patch k: on tiny instances of ComfyUI's real classes.

With every residual branch scaled to nothing a block hands its tokens on as they are, so a token
that is changed behind a block changes its own patch of the output and no other.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from comfyui_calibri.ahpa.hidden import PLACES, Block, HiddenError, read_blocks
from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.taps import GainTaps

from .dits import CASES
from .dits.case import ALL, DitCase
from .dits.fixtures import made_or_skipped

pytestmark = pytest.mark.oldest

CLAIMED = (
    "FLUX.1",
    "FLUX.2",
    "Chroma",
    "LongCat-Image",
    "Ovis-Image",
    "SD3",
    "SD3.5",
    "Qwen-Image",
    "Wan",
    "Lumina-Image-2.0",
    "NewBie",
    "Z-Image",
)


def changing(block: Block, token: int, count: int, model: nn.Module) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        own: Any
        if block.place.item is None:
            own = output.clone()
        else:
            own = tuple(None if part is None else part.clone() for part in output)
        generator = torch.Generator().manual_seed(5)
        tokens = block.place.tokens(own, count, model)
        tokens[:, token] += torch.randn(tokens.shape[-1], generator=generator)
        return own

    return hook


@pytest.mark.parametrize("chosen", [c for c in CASES if c.name in CLAIMED], ids=lambda c: c.name)
def test_a_changed_token_changes_its_own_patch(chosen: DitCase, newest: bool) -> None:
    model = copy.deepcopy(made_or_skipped(chosen, newest)).eval()
    backbone = read_backbone(model)
    nothing = torch.zeros(1, len(backbone.taps))
    with torch.no_grad(), GainTaps(model, backbone).scaled(nothing):
        plain = chosen.call(model, ALL)
    rows, columns = plain.shape[-2:]
    size = model.patch_size
    patch = int(size if isinstance(size, int) else size[-1])
    across = columns // patch
    count = across * (rows // patch)
    blocks = read_blocks(model)
    assert {block.name.split(".")[0] for block in blocks} == set(PLACES[chosen.family])
    for block in blocks:
        for token in (1, count - 1):
            module = model.get_submodule(block.module)
            handle = module.register_forward_hook(changing(block, token, count, model))
            with torch.no_grad(), GainTaps(model, backbone).scaled(nothing):
                found = chosen.call(model, ALL)
            handle.remove()
            moved = (found - plain).abs().amax(dim=tuple(range(plain.ndim - 2))) > 1e-6
            expected = torch.zeros(rows, columns, dtype=torch.bool)
            top, left = token // across * patch, token % across * patch
            expected[top : top + patch, left : left + patch] = True
            assert moved[expected].any(), (block.name, token)
            assert not moved[~expected].any(), (block.name, token)


def test_a_family_that_nobody_looked_at_is_refused_in_a_sentence(newest: bool) -> None:
    case = next(case for case in CASES if case.family == "mochi")
    model = made_or_skipped(case, newest)
    with pytest.raises(HiddenError, match="does not know where the family mochi"):
        read_blocks(model)
