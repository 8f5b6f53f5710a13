"""ComfyUI's own sampler as a comparison's painter: plain and calibrated models, drawn and scored.

Variants are the models that Apply Calibri makes, each sampled as Calibrate samples (`sampling.py`):
prompts encoded once, an image's noise its own, batches halved when memory is short.
`calibri/comparison.py` has the protocol.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import comfy.samplers
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ..calibri.coefficients import coefficient_space
from ..calibri.comparison import Drawn, Positions, Setting
from ..calibri.configuration import library_versions
from ..calibri.ensemble_space import ensemble_space
from ..calibri.evaluation import Floats, Sample
from ..rewards.batch import accepts_latents
from ..rewards.weights_mark import weights_of
from . import identity, model_options, runs
from .apply import with_preset
from .patching import backbone_of, has_gains
from .sampling import ComfyEvaluator, SamplerSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrapperExecutor
    from comfy.sd import CLIP, VAE
    from numpy.typing import NDArray

    from ..calibri.presets import Preset
    from ..rewards.protocol import Reward

_COUNTED = "calibri_evaluation"  # the counting wrapper's key


class ComfyPainter:
    """Draws and scores in ComfyUI; a `Painter`. Variant 0 is `model`, the others have `presets`.

    Raises ValueError with one sentence for a preset of another kind of model, and for a `model`
    that is not plain. `watch` is
    `ComfyEvaluator`'s. `guidance` is FluxGuidance's, `Sample.prompt` indexes `prompts`.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        presets: Sequence[Preset],
        rewards: Sequence[Reward],
        prompts: Sequence[str],
        negative: str,
        guidance: float,
        watch: Callable[[int, int], None] | None = None,
    ) -> None:
        if has_gains(model):
            raise ValueError(
                "model has a preset by Apply Calibri already, and is compared as the plain one: "
                "connect the model from before Apply Calibri."
            )
        self._clip, self._vae, self._rewards = clip, vae, tuple(rewards)
        self._prompts, self._watch = tuple(prompts), watch
        self._negative, self._guidance = negative, guidance
        self._models = [model, *(_calibrated(model, p, n) for n, p in enumerate(presets, 1))]
        self._networks = [_Networks(), *(_Networks(preset) for preset in presets)]
        self._marks: list[str] = []
        self._encoded: _Drawer | None = None  # has all prompts encoded
        self._warm: set[tuple[int, int]] = set()

    def check(self, settings: Iterable[Setting]) -> None:
        """Raise ValueError, before anything is drawn, for a setting that cannot be sampled."""
        for setting in settings:
            self._drawer(0, setting)

    def mark(self, variant: int) -> str:
        """A hash of the variant's model, text encoder, VAE, prompts' companions and rewards."""
        if not self._marks:
            self._marks = [self._mark(model) for model in self._models]
        return self._marks[variant]

    def plan(self, setting: Setting, bucket: Sequence[Sample]) -> list[Positions]:
        """As many rows at once as memory allows to the variant with the most members."""
        heaviest = max(
            range(len(self._models)), key=lambda variant: self._networks[variant].members
        )
        drawer = self._drawer(heaviest, setting)
        batches = drawer.plan(1, bucket)
        self._encoded = drawer
        return [tuple(position for _, position in batch) for batch in batches]

    def draw(self, variant: int, setting: Setting, bucket: Sequence[Sample]) -> Drawn:
        """Pictures and scores; BatchTooLargeError where memory runs out and halves may fit."""
        size = (setting.width, setting.height)
        if size not in self._warm:
            # Weights are loaded and kernels are chosen when first used: not in anybody's time.
            self._drawer(variant, replace(setting, steps=1)).paint(bucket[:1])
            self._warm.add(size)
        return self._drawer(variant, setting).draw(bucket)

    def _drawer(self, variant: int, setting: Setting) -> _Drawer:
        """Made anew each time: it keeps its batch's prompts on the device."""
        settings = SamplerSettings(
            setting.sampler,
            setting.scheduler,
            setting.steps,
            setting.cfg,
            self._guidance,
            setting.width,
            setting.height,
            self._negative,
        )
        drawer = _Drawer(
            self._models[variant],
            self._clip,
            self._vae,
            self._rewards,
            self._networks[variant],
            settings,
            self._prompts,
            self._watch,
        )
        if self._encoded is not None:
            drawer.take_over(self._encoded)
        return drawer

    def _mark(self, model: ModelPatcher) -> str:
        schedule = model.get_model_object("model_sampling")
        told = [
            identity.identity(model),
            model_options.mark(model),
            identity.of_clip(self._clip),
            identity.identity(self._vae.patcher),
            comfy.samplers.calculate_sigmas(schedule, "normal", 30).tolist(),
            [self._negative, self._guidance],
            [[reward.name, weights_of(reward)] for reward in self._rewards],
            [library_versions(), runs.host_versions()],
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


class _Networks:
    """How many of the model's evaluations one prediction takes."""

    def __init__(self, preset: Preset | None = None) -> None:
        self.guided = preset is not None and preset.guidance is not None
        live = 1 if preset is None else sum(member.weight != 0 for member in preset.members)
        self.members = max(1, live)

    def per_prediction(self, cfg: float) -> int:
        """Members, each twice under classifier-free guidance, which guided members are."""
        if self.guided:
            return 2
        return self.members * (1 if cfg == 1.0 else 2)


class _Drawer(ComfyEvaluator):
    """One variant at one setting."""

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        rewards: Sequence[Reward],
        networks: _Networks,
        settings: SamplerSettings,
        prompts: Sequence[str],
        watch: Callable[[int, int], None] | None,
    ) -> None:
        # What the evaluator varies stays at the identity, which changes no bit.
        space = ensemble_space(coefficient_space(backbone_of(model), "block"))
        super().__init__(model, clip, vae, rewards[0], space, settings, prompts, watch)
        self._rewards, self._networks = rewards, networks
        self._vectors = space.identity[None]
        self._predictions = _Counter()
        self._model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, _COUNTED, self._predictions)

    def draw(self, bucket: Sequence[Sample]) -> Drawn:
        """Pictures of the bucket and their scores by every reward."""
        began = time.perf_counter()
        latents, images, pictures = self.paint(bucket)
        return Drawn(
            images=pictures,
            seconds=time.perf_counter() - began,
            scores={r.name: self._scores(r, latents, images, bucket) for r in self._rewards},
            nfe=self._predictions.count * self._networks.per_prediction(self._settings.cfg),
        )

    def paint(
        self, bucket: Sequence[Sample]
    ) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.uint8]]:
        """Latents, images [B, H, W, 3] in 0..1, and these as bytes."""
        count, batch = len(bucket), tuple((0, position) for position in range(len(bucket)))
        latents = self._within_memory(count, lambda: self._sample(batch, self._vectors, bucket))
        images = self._within_memory(count, lambda: self._decode(self._vae, latents))
        return latents, images, (images * 255.0).round().to(torch.uint8).cpu().numpy()

    def _scores(
        self,
        reward: Reward,
        latents: torch.Tensor,
        images: torch.Tensor,
        bucket: Sequence[Sample],
    ) -> Floats:
        prompts = [self.prompts[sample.prompt] for sample in bucket]
        seen = latents if accepts_latents(reward) else images
        self._look_up(self._settings.steps, self._settings.steps)
        scores = self._within_memory(len(bucket), lambda: reward.score(seen, prompts))
        return np.asarray(torch.as_tensor(scores).detach().cpu().double().numpy())

    def _chunks(self) -> int:
        return self._networks.per_prediction(self._settings.cfg)


class _Counter:
    """A `PREDICT_NOISE` wrapper: counts what the sampler asks of the model."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.count += 1
        return executor(*args, **kwargs)


def _calibrated(model: ModelPatcher, preset: Preset, number: int) -> ModelPatcher:
    """What Apply Calibri makes of it; an error names the input."""
    try:
        return with_preset(model, preset)
    except ValueError as error:
        raise ValueError(f"preset_{number}: {error}") from error
