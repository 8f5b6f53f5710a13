"""The levels of a frozen VAE encoder: where its features come from, and which group they are of.

An encoder works in *stages*, each at half the resolution of the one before. The paper takes a
middle group "derived from G3" (spatial topology, structure) and a deep group (semantic layout). Our
reading: G3 is the third stage, a quarter of the picture's resolution; the deep group is the stage
after it and what follows at its resolution. The two stages before are *shallow*: they are there to
be compared with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

SHALLOW, MIDDLE, DEEP = "shallow", "middle", "deep"
GROUPS = (SHALLOW, MIDDLE, DEEP)
_MIDDLE_STAGE = 2  # the third


class UnknownEncoderError(ValueError):
    """The VAE's encoder has none of the shapes whose levels are known."""


@dataclass(frozen=True)
class Level:
    """One block of an encoder, whose output is a level of features."""

    module: str  # path below the encoder: "down.2.block.1"
    stage: int  # 0, 1, 2 …; its resolution is the picture's / 2 ** stage

    @property
    def group(self) -> str:
        """shallow, middle or deep."""
        if self.stage < _MIDDLE_STAGE:
            return SHALLOW
        return MIDDLE if self.stage == _MIDDLE_STAGE else DEEP


def read_levels(encoder: nn.Module) -> tuple[Level, ...]:
    """The levels of a VAE's encoder, from the picture to the latent.

    Known are the shapes of AutoencoderKL (SD3, FLUX), of the Wan and Qwen VAE, and of TAESD. Raises
    UnknownEncoderError for others, and for encoders without a third and a fourth stage.
    """
    for read in (_autoencoder_kl, _diffusers_kl, _wan, _taesd):
        levels = tuple(read(encoder))
        if levels:
            break
    else:
        raise UnknownEncoderError(
            f"The VAE's encoder is a {type(encoder).__name__}, whose levels AHPA does not know: "
            "use a VAE of the kind of SD3, FLUX, Wan, Qwen-Image or TAESD."
        )
    if not {MIDDLE, DEEP} <= {level.group for level in levels}:
        raise UnknownEncoderError(
            f"The VAE's encoder has {1 + levels[-1].stage} stages, and AHPA needs four: use a VAE "
            "that makes pictures eight times smaller."
        )
    return levels


def _autoencoder_kl(encoder: nn.Module) -> Iterator[Level]:
    """`down.N.block.M`, then `mid.block_1` and `mid.block_2`."""
    stages = getattr(encoder, "down", None)
    middle = getattr(encoder, "mid", None)
    if not isinstance(stages, nn.ModuleList) or not isinstance(middle, nn.Module):
        return
    for number, stage in enumerate(stages):
        blocks = stage.get_submodule("block")
        for block, _ in enumerate(blocks.children()):
            yield Level(f"down.{number}.block.{block}", number)
    for name in ("block_1", "block_2"):
        yield Level(f"mid.{name}", len(stages) - 1)


def _diffusers_kl(encoder: nn.Module) -> Iterator[Level]:
    """The same under diffusers' names: `down_blocks.N.resnets.M`, `mid_block.resnets.M`."""
    stages = getattr(encoder, "down_blocks", None)
    middle = getattr(encoder, "mid_block", None)
    if not isinstance(stages, nn.ModuleList) or not isinstance(middle, nn.Module):
        return
    for number, stage in enumerate(stages):
        for block, _ in enumerate(stage.get_submodule("resnets").children()):
            yield Level(f"down_blocks.{number}.resnets.{block}", number)
    for block, _ in enumerate(middle.get_submodule("resnets").children()):
        yield Level(f"mid_block.resnets.{block}", len(stages) - 1)


def _wan(encoder: nn.Module) -> Iterator[Level]:
    """`downsamples.N`, residual blocks between the steps down, then `middle.0` and `middle.2`."""
    blocks, middle = getattr(encoder, "downsamples", None), getattr(encoder, "middle", None)
    if not isinstance(blocks, nn.Sequential) or not isinstance(middle, nn.Sequential):
        return
    stage, found = 0, []
    for number, block in enumerate(blocks):
        kind = type(block).__name__
        if kind == "Resample":
            stage += 1
        elif kind == "ResidualBlock":
            found.append(Level(f"downsamples.{number}", stage))
        elif kind != "AttentionBlock":
            return  # Wan 2.2's stages are modules of their own
    yield from found
    for number, block in enumerate(middle):
        if type(block).__name__ == "ResidualBlock":
            yield Level(f"middle.{number}", stage)


def _taesd(encoder: nn.Module) -> Iterator[Level]:
    """A sequence of blocks, between them convolutions with a stride of 2."""
    if not isinstance(encoder, nn.Sequential):
        return
    stage = 0
    for number, block in enumerate(encoder):
        if isinstance(block, nn.Conv2d):
            stage += block.stride[0] == 2
        elif type(block).__name__ == "Block":
            yield Level(str(number), stage)
        else:
            return


def chosen_levels(levels: tuple[Level, ...], choice: str) -> tuple[Level, ...]:
    """The levels of a choice: groups or paths, with commas between ("middle, deep").

    Raises ValueError for a word that is neither, naming those there are.
    """
    words = [word.strip() for word in re.split(r",", choice) if word.strip()]
    names = {level.module for level in levels}
    for word in words or [choice]:
        if word not in GROUPS and word not in names:
            raise ValueError(
                f"There is no level {word!r}: choose among {', '.join(GROUPS)}, or single levels "
                f"({', '.join(level.module for level in levels)})."
            )
    return tuple(level for level in levels if level.group in words or level.module in words)
