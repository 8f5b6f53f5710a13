"""SiT's checkpoints: the names of its published code (and REPA's), and the sizes that these tell.

Time and sign are REPA's: t = 1 is noise, the velocity is noise − picture. SiT's own checkpoints
have both the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .sit import SIZES, SiT, SiTConfig

_OURS, _THEIRS = "y_embedder.weight", "y_embedder.embedding_table.weight"
_POSITIONS = "pos_embed"
_FINAL = ("final_layer.linear.weight", "final_layer.linear.bias")
_BESIDE = ("projectors.",)  # REPA's, which a trained model does not need


def reference_names(model: SiT, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights (the averaged ones, say) as the reference saves them."""
    held = dict(weights)
    if model.config.classes:
        held[_THEIRS] = held.pop(_OURS)
    held[_POSITIONS] = model.pos_embed
    return held


def is_sit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file with these tensors is one."""
    return "x_embedder.proj.weight" in shapes and "blocks.0.attn.qkv.weight" in shapes


def read_config(shapes: Mapping[str, tuple[int, ...]], heads: int = 0) -> SiTConfig:
    """The sizes of a file's model. `heads` 0 takes those of the published model of its width.

    Raises ValueError for a file that does not tell them.
    """
    hidden, channels, patch, _ = shapes["x_embedder.proj.weight"]
    known = {config.hidden: config.heads for config in SIZES.values()}
    if not heads and hidden not in known:
        raise ValueError(
            f"The model is {hidden} wide, and its file does not tell its number of heads: give "
            "--heads."
        )
    if _POSITIONS not in shapes:
        raise ValueError(
            "The model's file has no pos_embed, which tells its grid: give one as SiT's own code "
            "saves it."
        )
    classes = shapes[_THEIRS][0] - 1 if _THEIRS in shapes else 0
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    return SiTConfig(
        hidden=hidden,
        depth=depth,
        heads=heads or known[hidden],
        patch=patch,
        channels=channels,
        side=round(shapes[_POSITIONS][1] ** 0.5) * patch,
        classes=classes,
        pooled=0 if classes else shapes[_OURS][1],
    )


def load_reference(model: SiT, tensors: Mapping[str, Tensor]) -> None:
    """Fill `model` from a file's tensors.

    Of a model that also learnt a variance, the velocity is taken. Raises ValueError for tensors
    that are missing, left over or of another shape.
    """
    held = {n: v.float() for n, v in tensors.items() if not n.startswith(_BESIDE)}
    positions = held.pop(_POSITIONS, None)
    if positions is not None and not torch.allclose(positions, model.pos_embed, atol=1e-4):
        raise ValueError("The model's positions are not SiT's sines: it is of another kind.")
    if _THEIRS in held:
        held[_OURS] = held.pop(_THEIRS)
    config = model.config
    outputs = config.patch**2 * config.channels
    if held[_FINAL[0]].shape[0] == 2 * outputs:
        for name in _FINAL:
            value = held[name].unflatten(0, (config.patch**2, 2, config.channels))
            held[name] = value[:, 0].flatten(0, 1)
    try:
        model.load_state_dict(held)
    except RuntimeError as error:
        raise ValueError(f"The file holds no SiT of these sizes ({error}).") from error
