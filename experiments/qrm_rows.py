"""The rows of the QRM's ablation: what is trained in each, and with which losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from ..demo.pictures import DemoModels
from ..demo.trainee import Cut
from ..qrm.config import QRMConfig, parameters
from ..qrm.module import QRM
from ..qrm.recipe import LossWeights, Recipe
from .qrm_controls import Constants, Lora, PromptOnly, TimestepOnly

LOSSES = LossWeights(flow=0.5, late=1.0, last=1.0, difficulty=0.1, size=0.01)
RECIPE = Recipe(
    steps=40,
    batch=12,
    learning_rate=2e-3,
    warm_up=4,
    ema=0.9,
    backward_steps=2,
    plain_images=1,
    validate_every=20,
    patience=0,
    save_every=1000,
    losses=LOSSES,
)
Make = Callable[[DemoModels, QRMConfig], nn.Module]


@dataclass(frozen=True)
class Row:
    """One training: `make` gets the demo and the reference's configuration."""

    name: str
    group: str
    make: Make = lambda models, config: QRM(config)
    recipe: Recipe = RECIPE
    cut: Cut = field(default_factory=Cut)
    constant_difficulty: bool = False
    shuffled: str = ""  # the name of a row of its modules with other prompts' vectors


def _sized(**changes: int) -> Make:
    return lambda models, config: QRM(replace(config, **changes))


def _mode(mode: str) -> Make:
    return lambda models, config: QRM(
        replace(config, mode=mode, layout=QRMConfig.for_backbone(models.dit, 64, 64, mode).layout)
    )


def _losses(**changes: float) -> Recipe:
    return replace(RECIPE, losses=replace(LOSSES, **changes))


def _constants(models: DemoModels, config: QRMConfig) -> nn.Module:
    return Constants(config)


def _lora(models: DemoModels, config: QRMConfig) -> nn.Module:
    return Lora(models.dit)


def _rate(times: int) -> Recipe:
    return replace(RECIPE, learning_rate=times * RECIPE.learning_rate)


REFERENCE = "QRM"
_LONG = replace(RECIPE, steps=160, warm_up=16, ema=0.97, validate_every=40)
ROWS = (
    Row(REFERENCE, "main", shuffled="prompts shuffled at inference"),
    Row("constant vectors, full rank", "controls", _constants),
    Row(
        "timestep-only MLP",
        "controls",
        lambda models, config: TimestepOnly(config, parameters(config)),
    ),
    Row("prompt only", "controls", lambda models, config: PromptOnly(config)),
    Row("difficulty replaced by its mean", "controls", constant_difficulty=True),
    Row("LoRA, rank 1", "controls", _lora),
    Row("constant vectors, 4 × the rate", "controls", _constants, _rate(4)),
    Row("constant vectors, 16 × the rate", "controls", _constants, _rate(16)),
    Row("LoRA, 4 × the rate", "controls", _lora, _rate(4)),
    Row("LoRA, 16 × the rate", "controls", _lora, _rate(16)),
    Row("QRM, 4 × the rate", "controls", recipe=_rate(4)),
    Row("reward only", "losses", recipe=_losses(flow=0.0, difficulty=0.0, size=0.0)),
    Row("without late one-step reward", "losses", recipe=_losses(late=0.0)),
    Row("without last-steps reward", "losses", recipe=_losses(last=0.0)),
    Row("without flow matching", "losses", recipe=_losses(flow=0.0)),
    Row("without difficulty", "losses", recipe=_losses(difficulty=0.0)),
    Row("without size", "losses", recipe=_losses(size=0.0)),
    Row("QRM, 4 × the steps", "longer", recipe=_LONG, shuffled="shuffled, 4 × the steps"),
    Row("constant vectors, 4 × the steps", "longer", _constants, _LONG),
    Row("mode gates", "architecture", _mode("gates")),
    Row("last two of four steps", "architecture", cut=Cut(0.0, 0.6)),
    Row("mode scale", "architecture", _mode("scale")),
    Row("two layers", "architecture", _sized(layers=2)),
    Row("K = 4", "architecture", _sized(compressed=4)),
    Row("flow matching only", "losses", recipe=_losses(late=0.0, last=0.0)),
    Row(
        "first two of four steps",
        "architecture",
        recipe=replace(RECIPE, backward_steps=4, losses=replace(LOSSES, late=0.0)),
        cut=Cut(0.6, 1.0),
    ),
)
