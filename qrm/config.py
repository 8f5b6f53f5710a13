"""Sizes of a QRM, and how they follow from those of the model it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from .layout import Layout, read_layout

# The module may have at most this part of the backbone's parameters.
SHARE = 0.01


@dataclass(frozen=True)
class QRMConfig:
    """What determines a QRM's parameters; plain data, for a file (`files.py`)."""

    layout: Layout  # of the model, with the chunks that `mode` changes
    mode: str  # "add": chunk + M; "scale": chunk · (1 + M); "gates": the same, gates only
    tokens: int  # width of a prompt token; 0 for a module that sees none
    pooled: int  # width of the pooled prompt; 0 for none
    width: int = 384  # of the module's own tokens
    layers: int = 3
    heads: int = 6
    compressed: int = 8  # K, the tokens a prompt becomes
    rank: int = 16  # of the change of one slot
    ratio: int = 4  # width inside a layer's MLP, in widths

    @classmethod
    def for_backbone(
        cls, model: nn.Module, tokens: int, pooled: int, mode: str = "add"
    ) -> QRMConfig:
        """The largest of some sizes that keeps to 1 % of the model's parameters.

        `tokens` and `pooled` are the widths of the prompt's tokens and of its pooled embedding as
        the model gets them, 0 where it gets none. Raises QRMError for a mode or a model that
        cannot be, UnknownBackboneError for a model of no known family.
        """
        layout = read_layout(model).for_mode(mode)
        limit = SHARE * sum(parameter.numel() for parameter in model.parameters())
        config = cls(layout, mode, tokens, pooled)
        for width, layers, heads, compressed, rank, ratio in _SIZES:
            config = replace(
                config,
                width=width,
                layers=layers,
                heads=heads,
                compressed=compressed,
                rank=rank,
                ratio=ratio,
            )
            if parameters(config) <= limit:
                break
        return config


# width, layers, heads, K, rank, ratio. Of a model below a few million parameters even the smallest
# may be more than 1 %.
_SIZES = (
    (768, 4, 12, 16, 32, 4),
    (384, 3, 6, 8, 16, 4),
    (256, 2, 4, 8, 8, 4),
    (128, 2, 4, 4, 4, 4),
    (64, 1, 2, 4, 4, 2),
    (32, 1, 2, 2, 2, 2),
    (16, 1, 1, 1, 1, 2),
)


def parameters(config: QRMConfig) -> int:
    """How many parameters a QRM of this configuration has."""
    import torch

    from .module import QRM

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in QRM(config).parameters())
