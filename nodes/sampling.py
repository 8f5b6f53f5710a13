"""ComfyUI's own sampler as a calibration's evaluator: candidates and samples in, rewards out.

Each row of a batch is one (candidate, sample) pair with coefficients, prompt and noise of its own,
so one sampler run compares many candidates. `calibri/evaluation.py` has the protocol, `noise.py`
says whose noise is whose, `patching.py` how a row gets its coefficients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.samplers
import numpy as np
import torch

from ..calibri.diversity import diversity_of_small, small_images
from ..calibri.evaluation import Batch, BatchTooLargeError, Floats, ImageTooLargeError, Sample
from ..calibri.judging import DIVERSITY, twin
from ..rewards.batch import accepts_latents
from .decoding import Preview, decode
from .drawn_latents import DrawnLatents
from .encoded_prompts import EncodedPrompts
from .gain_layer import GainLayer
from .latents import empty_latent
from .noise import check_sampler, check_scheduler, initial_noise, row_sampler
from .patching import apply_gains

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..calibri.ensemble_space import EnsembleSpace
    from ..rewards.protocol import Reward

MAX_ROWS = 64  # more run no faster, and progress, previews and Cancel wait for a batch
MAX_ROWS_CPU = 16  # 64 at once decode 1.6 times slower per image: they overflow a CPU's caches
MEMORY_MARGIN = 1.5  # ComfyUI's own margin over `memory_required` when it joins chunks


@dataclass(frozen=True)
class SamplerSettings:
    """How every image of a run is sampled; the fields are KSampler's and FluxGuidance's."""

    sampler: str
    scheduler: str
    steps: int
    cfg: float
    guidance: float | None
    width: int
    height: int
    negative: str


class ComfyEvaluator:
    """Samples, decodes and scores images in ComfyUI; an `Evaluator`.

    Raises ValueError with one sentence for a size or VAE that does not fit the model, and for a
    sampler or scheduler that is unknown or unfit.
    Prompts are encoded once, when the first batches are planned; `Sample.prompt` indexes `prompts`.
    `watch(done, steps)` hears of each step of a batch, as (0, steps) of each prompt encoded and
    each batch of `images`, and as (steps, steps) of decoding and scoring before they begin; what it
    raises ends the batch. `preview` decodes the search's own images in the VAE's place; a reward
    that accepts latents gets them undecoded. `judges` are other rewards by their names.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        reward: Reward,
        space: EnsembleSpace,
        settings: SamplerSettings,
        prompts: Sequence[str],
        watch: Callable[[int, int], None] | None = None,
        preview: Preview | None = None,
        judges: Mapping[str, Reward] | None = None,
    ) -> None:
        check_sampler(settings.sampler)
        check_scheduler(settings.scheduler)
        self._latent = empty_latent(model, vae, settings.width, settings.height)
        self._settings, self._space, self.prompts = settings, space, tuple(prompts)
        self._vae, self._reward, self.reward_name = vae, reward, reward.name
        gains, weights = _tensors(space, space.identity[None])
        self._rows = GainLayer(gains, weights=weights, guidance=space.guidance)
        self._model = apply_gains(model, self._rows)
        self._device: torch.device = model.load_device
        self._sigmas: torch.Tensor = comfy.samplers.KSampler(
            self._model,
            settings.steps,
            self._device,
            settings.sampler,
            settings.scheduler,
            model_options=self._model.model_options,
        ).sigmas
        self._encoded = EncodedPrompts(
            clip, self.prompts, settings.negative, settings.guidance, self._device
        )
        self._watch = watch
        self.preview = preview
        self._judges = dict(judges or {})
        self._drawn = DrawnLatents()  # of the confirmation, when the judges are asked
        self.on_pictures: Callable[[torch.Tensor], None] | None = None
        """Hears of a batch's decoded images [len(batch), H, W, 3] before they are scored."""
        self.images_at_once: int | None = None
        """At most; None: as many as memory allows."""
        self._max_rows = 0  # known when first asked

    def take_over(self, other: ComfyEvaluator) -> None:
        """Go on with what `other` has encoded, for the same prompts with the same text encoder."""
        self._encoded.take_over(other._encoded)

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """Batches of equal conditioning shapes, as many rows as memory allows.

        All candidates of a sample stand together: those of one sample can always share a batch.
        """
        self._encode_prompts()
        if not self._max_rows:
            fit = self._rows_that_fit()
            self._max_rows = min(fit, self.images_at_once or fit)
        alike: dict[object, list[int]] = {}
        for position, sample in enumerate(bucket):
            alike.setdefault(self._encoded.signature(sample.prompt), []).append(position)
        batches: list[Batch] = []
        for positions in alike.values():
            pairs = [(candidate, p) for p in positions for candidate in range(candidates)]
            # Near equal sizes: a short last batch would use the device badly.
            count = -(-len(pairs) // self._max_rows)
            size = -(-len(pairs) // count)
            batches += [tuple(pairs[i : i + size]) for i in range(0, len(pairs), size)]
        return batches

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)]; BatchTooLargeError where memory runs out and halves may fit."""
        numbers = [bucket[position].prompt for _, position in batch]
        preview, latents = self.preview, self._latents(batch, vectors, bucket)
        if preview is None or not preview.stands_in(numbers):
            return self._scored(self._reward, numbers, latents, self._vae)
        found = self._scored(self._reward, numbers, latents, preview.vae)
        if preview.agreement is None and not accepts_latents(self._reward):
            preview.compare(found, self._scored(self._reward, numbers, latents, self._vae), batch)
        return found

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        """As `run`, by another reward, or how far the images lie from their twins."""
        numbers = [bucket[position].prompt for _, position in batch]
        if judge != DIVERSITY:
            latents = self._latents(batch, vectors, bucket)
            return self._scored(self._judges[judge], numbers, latents, self._vae)
        pairs = [self._draw(batch, vectors, b) for b in (bucket, [twin(s) for s in bucket])]
        small = [small_images(_as_bytes(images)) for images in pairs]
        return diversity_of_small(np.stack(small, axis=1))

    def _latents(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> torch.Tensor:
        def draw() -> torch.Tensor:
            return self._within_memory(len(batch), lambda: self._sample(batch, vectors, bucket))

        return self._drawn.of(batch, vectors, bucket, draw) if self._judges else draw()

    def _scored(
        self, reward: Reward, numbers: Sequence[int], latents: torch.Tensor, vae: VAE
    ) -> Floats:
        """Scores of what was sampled, decoded by `vae` where the reward sees pictures."""
        seen = latents
        if not accepts_latents(reward):
            seen = self._within_memory(len(latents), lambda: self._decode(vae, latents))
            if self.on_pictures is not None:
                self.on_pictures(seen)
        prompts = [self.prompts[number] for number in numbers]
        self._look_up(self._settings.steps, self._settings.steps)
        scores = self._within_memory(len(latents), lambda: reward.score(seen, prompts))
        return torch.as_tensor(scores).detach().cpu().double().numpy()

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> np.ndarray:
        """Pictures [K, len(bucket), H, W, 3], uint8."""
        pictures: list[list[np.ndarray | None]] = [[None] * len(bucket) for _ in vectors]
        pending = list(reversed(self.plan(len(vectors), bucket)))
        while pending:
            self._look_up(0, self._settings.steps)
            batch = pending.pop()
            try:
                drawn = self._draw(batch, vectors, bucket)
            except BatchTooLargeError:
                half = len(batch) // 2
                pending += [batch[half:], batch[:half]]
                continue
            for (candidate, position), picture in zip(batch, _as_bytes(drawn), strict=True):
                pictures[candidate][position] = picture
        return np.asarray(pictures, dtype=np.uint8)

    def _draw(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> torch.Tensor:
        """Images [len(batch), H, W, 3] in 0..1; out of memory becomes BatchTooLargeError."""
        return self._within_memory(
            len(batch), lambda: self._decode(self._vae, self._sample(batch, vectors, bucket))
        )

    def _decode(self, vae: VAE, latents: torch.Tensor) -> torch.Tensor:
        self._look_up(self._settings.steps, self._settings.steps)
        return decode(vae, latents)

    def _within_memory(self, images: int, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        try:
            return make()
        except Exception as error:
            if not _out_of_memory(error):
                raise
        # Outside the except block the failed run's tensors are free.
        comfy.model_management.soft_empty_cache()
        if images == 1:
            raise ImageTooLargeError(
                f"One image of {self._settings.width} x {self._settings.height} does not fit in "
                "memory beside the model; use a smaller size, or start ComfyUI with --lowvram. "
                "The run goes on where it stopped when the same settings are queued again."
            )
        logging.warning("Calibri: %d images at once ran out of memory; halving.", images)
        raise BatchTooLargeError(f"a batch of {images} images ran out of memory")

    def _sample(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> torch.Tensor:
        """Latents [len(batch), ...] on the model's device."""
        self._encode_prompts()
        candidates = [candidate for candidate, _ in batch]
        drawn = [bucket[position] for _, position in batch]
        seeds = [sample.seed for sample in drawn]
        self._rows.replace(*_tensors(self._space, vectors[candidates]))
        noise = initial_noise(self._latent.shape[1:], seeds)
        like = noise.to(self._device)
        guider = comfy.samplers.CFGGuider(self._model)
        positive = self._encoded.positive([sample.prompt for sample in drawn])
        guider.set_conds(positive, self._encoded.negative)
        guider.set_cfg(self._settings.cfg)
        return guider.sample(
            noise,
            self._latent.expand(len(batch), *self._latent.shape[1:]),
            row_sampler(self._settings.sampler, seeds, self._sigmas, like),
            self._sigmas,
            callback=self._on_step,
            disable_pbar=True,
            seed=0,
        )

    def _encode_prompts(self) -> None:
        self._encoded.encode(lambda: self._look_up(0, self._settings.steps))

    def _on_step(self, step: int, x0: object, x: object, total_steps: int) -> None:
        self._look_up(step + 1, total_steps)

    def _look_up(self, done: int, steps: int) -> None:
        """A point where Cancel takes effect, and whatever `watch` raises."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._watch is not None:
            self._watch(done, steps)

    def _rows_that_fit(self) -> int:
        """How many images ComfyUI's own estimate lets run at once beside the model alone."""
        # Not what is free now: ComfyUI makes room, and a resumed run must plan as it did before.
        total = comfy.model_management.get_total_memory(self._device)
        # Of a model that does not fit beside this, ComfyUI loads a part.
        least = comfy.model_management.minimum_inference_memory()
        free = max(total - self._model.model_size(), least)
        chunks = self._chunks()
        shape = list(self._latent.shape[1:])
        rows = MAX_ROWS_CPU if self._device.type == "cpu" else MAX_ROWS
        while rows > 1:
            needed = self._model.model.memory_required([rows * chunks, *shape])
            if needed * MEMORY_MARGIN < free:
                break
            rows //= 2
        return rows

    def _chunks(self) -> int:
        """How often the model sees each image at a step."""
        chunks = 1 if self._settings.cfg == 1.0 else 2
        if self._space.guidance is None:  # else the members are the two chunks
            chunks *= self._space.members
        return chunks


def _as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _tensors(space: EnsembleSpace, vectors: Floats) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gains [R, M, T] and weights [R, M] of a layer for the rows' vectors [R, D]."""
    gains, weights = space.expand(vectors)
    return torch.from_numpy(gains), None if weights is None else torch.from_numpy(weights)


def _out_of_memory(error: Exception) -> bool:
    is_oom = getattr(comfy.model_management, "is_oom", None)  # absent in v0.3.64
    if is_oom is not None:
        return bool(is_oom(error))
    return isinstance(error, comfy.model_management.OOM_EXCEPTION)
