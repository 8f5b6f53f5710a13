"""The demo model in a comparison without ComfyUI: plain against presets, over steps and cfg.

Three scores of every picture: the learned reward that searches raise, and two of the checker, which
no search has seen.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import torch

from ..calibri.backbones import Backbone
from ..calibri.comparison import Drawn, Positions, Setting
from ..calibri.evaluation import Sample
from ..calibri.preset_metadata import preset_to_json
from ..calibri.presets import Preset, check_preset
from .judges import ALL_FACTS, FACTS, judgements
from .pictures import MOST_ROWS, DemoModels, DemoPictures, Layer, to_bytes
from .prompts import parse
from .reward import DemoReward
from .scenes import IMAGE_SIZE

SCORES = (DemoReward.name, FACTS, ALL_FACTS)
"""What a picture is scored by, the first being what searches raise."""
SAMPLER, SCHEDULER = "euler", "simple"


class DemoPainter:
    """Satisfies `calibri.comparison.Painter`; variant 0 is plain, the others are `presets`.

    Raises PresetError for a preset of another kind of model, and PromptError for a prompt that is
    not in the demo's language.
    """

    def __init__(
        self, models: DemoModels, presets: Sequence[Preset], prompts: Sequence[str]
    ) -> None:
        for prompt in prompts:
            parse(prompt)
        self._reward, self._pictures = models.reward, DemoPictures(models, prompts)
        backbone = models.backbone
        self._layers = [Layer(torch.ones(1, 1, len(backbone.taps)))]
        self._layers += [_layer(preset, backbone) for preset in presets]
        weights = _digest(models)
        self._marks = [weights, *(f"{weights} {_mark(preset)}" for preset in presets)]

    def mark(self, variant: int) -> str:
        """A hash of the demo's weights, and of the preset."""
        return self._marks[variant]

    def plan(self, setting: Setting, bucket: Sequence[Sample]) -> list[Positions]:
        """Batches of near equal size. ValueError for a setting that only ComfyUI has."""
        if (setting.sampler, setting.scheduler) != (SAMPLER, SCHEDULER):
            raise ValueError(
                f"The sampler {setting.sampler!r} with the scheduler {setting.scheduler!r} is "
                f"ComfyUI's: without ComfyUI the demo model has {SAMPLER!r} with {SCHEDULER!r}."
            )
        if (setting.width, setting.height) != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"The size {setting.width}x{setting.height} is not the demo model's: "
                f"it draws {IMAGE_SIZE}x{IMAGE_SIZE}."
            )
        places = np.arange(len(bucket))
        return [
            tuple(part.tolist()) for part in np.array_split(places, -(-len(places) // MOST_ROWS))
        ]

    @torch.no_grad()
    def draw(self, variant: int, setting: Setting, bucket: Sequence[Sample]) -> Drawn:
        """The bucket's pictures and their scores."""
        layer = self._layers[variant]
        began = time.perf_counter()
        pictures = self._pictures.draw(bucket, layer, setting.steps, setting.cfg)
        seconds = time.perf_counter() - began
        prompts = [self._pictures.prompts[sample.prompt] for sample in bucket]
        rewards = self._reward.score(pictures, prompts)
        images = to_bytes(pictures).numpy()
        scores = {DemoReward.name: rewards.double().numpy(), **judgements(images, prompts)}
        return Drawn(images, scores, seconds, setting.steps * _calls(layer, setting.cfg))


def _layer(preset: Preset, backbone: Backbone) -> Layer:
    space, vectors = check_preset(preset, backbone)
    weights = torch.tensor([[member.weight for member in preset.members]])
    return Layer(
        torch.as_tensor(space.expand(vectors), dtype=torch.float32)[None],
        weights if preset.is_ensemble else None,
        preset.guidance,
    )


def _calls(layer: Layer, cfg: float) -> int:
    """How often a step runs the model."""
    members = layer.gains.shape[1]
    return members if layer.guidance is not None or cfg == 1.0 else 2 * members


def _mark(preset: Preset) -> str:
    values = [[*member.coefficients.values(), member.weight] for member in preset.members]
    told = preset_to_json(preset).encode() + np.array(values).tobytes()
    return hashlib.sha256(told).hexdigest()[:32]


def _digest(models: DemoModels) -> str:
    digest = hashlib.sha256()
    for part in (models.dit, models.text_encoder, models.autoencoder, models.reward.detector):
        for tensor in part.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
