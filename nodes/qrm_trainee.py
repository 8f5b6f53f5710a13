"""A ComfyUI model as a QRM's training sees it (`qrm/trainee.py`): frozen, and open to vectors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import comfy.model_management
import comfy.samplers
import torch

from ..calibri.vectors import Vectors
from .block_recomputation import Kept
from .conditioning import Conditioning
from .encoded_prompts import EncodedPrompts
from .latents import empty_latent
from .model_conds import model_conds
from .qrm_layer import Prompt, flow_time
from .resident import let_go
from .trainable import TrainableModel, copied, own_weights

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn in training; the fields are KSampler's and FluxGuidance's."""

    scheduler: str
    steps: int
    cfg: float
    guidance: float | None
    width: int
    height: int
    negative: str


class Found(NamedTuple):
    """The model's x0, the vectors of the positive prompt and what the module expects [B]."""

    x0: torch.Tensor
    vectors: Vectors | None
    quality: torch.Tensor | None


class ComfyTrainee:
    """Satisfies `qrm.trainee.Trainee`. Made, used and closed within `trainable.training_mode`.

    Euler steps through ComfyUI's schedule, in which a module has vectors for both predictions of
    classifier-free guidance. `watch` is called between calls of the model and may raise.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        prompts: Sequence[str],
        drawing: Drawing,
        checkpointing: bool = True,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self.prompts, self._cfg, self._watch = tuple(prompts), drawing.cfg, watch
        latent = empty_latent(model, vae, drawing.width, drawing.height)
        self.shape = tuple(latent.shape[1:])
        self.device: torch.device = model.load_device
        self._encoded = EncodedPrompts(
            clip, self.prompts, drawing.negative, drawing.guidance, self.device
        )
        with torch.no_grad():
            self._encoded.encode(self.look_up)
        self._latent = latent.clone()
        schedule = comfy.samplers.KSampler(
            model,
            drawing.steps,
            self.device,
            "euler",
            drawing.scheduler,
            model_options=model.model_options,
        ).sigmas
        self.sigmas = tuple(float(sigma) for sigma in schedule)
        self._frozen = TrainableModel(model, checkpointing)
        self._vae = vae
        self._decoder = copied(vae.first_stage_model)
        own_weights(self._decoder)
        self._decoder.requires_grad_(False).to(self.device)
        self._kept = Kept(self._decoder)

    def denoised(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        rows: Sequence[int],
        module: torch.nn.Module | None,
    ) -> Found:
        """x0 of latents `x` [B, ...] at `sigma` [B], guided where cfg is not 1.

        Prompts whose conditioning differs in shape or mask take calls of their own.
        """
        alike: dict[Hashable, list[int]] = {}
        for place, row in enumerate(rows):
            alike.setdefault(self._encoded.signature(row), []).append(place)
        if len(alike) == 1:
            return self._alike(x, sigma, rows, module)
        parts = [
            self._alike(x[places], sigma[places], [rows[place] for place in places], module)
            for places in alike.values()
        ]
        order = torch.tensor([place for places in alike.values() for place in places])
        order = order.argsort().to(x.device)
        vectors, quality = None, None
        if module is not None:
            vectors = Vectors.cat([part.vectors for part in parts]).rows(order)
        if all(part.quality is not None for part in parts):
            quality = torch.cat([part.quality for part in parts])[order]
        return Found(torch.cat([part.x0 for part in parts])[order], vectors, quality)

    def _alike(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        rows: Sequence[int],
        module: torch.nn.Module | None,
    ) -> Found:
        found = self._call(x, sigma, self._encoded.positive(rows), module)
        if self._cfg == 1.0:
            return found
        against = self._call(x, sigma, self._encoded.negative, module).x0
        return found._replace(x0=against + self._cfg * (found.x0 - against))

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """As the model's own schedule mixes them."""
        sampling = self._frozen.model.model_sampling
        mixed: torch.Tensor = sampling.noise_scaling(sigma, noise, latents)
        return mixed

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures [B, H, W, 3] in 0..1 by the VAE; gradients flow."""
        seen = self._frozen.model.process_latent_out(latents).to(self._vae.vae_dtype)
        if self._vae.latent_dim == 2 and seen.ndim == 5:
            seen = seen[:, :, 0]
        with self._kept.copies():
            decoded = self._decoder.decode(seen)
            pictures = self._vae.process_output(decoded.float().clone())
        if pictures.ndim == 5:
            pictures = pictures[:, :, 0]  # of one frame
        shown: torch.Tensor = pictures.movedim(1, -1)[..., :3].clamp(0.0, 1.0)
        return shown

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Latents [N, ...], as the model sees them, of pictures [N, H, W, 3] in 0..1."""
        found = [self._vae.encode(picture[None, ..., :3]) for picture in pictures]
        latents = torch.cat(found).to(self.device, torch.float32)
        latents = latents.view(len(pictures), *self.shape)
        out: torch.Tensor = self._frozen.model.process_latent_in(latents).clone()
        return out

    @torch.no_grad()
    def prompt(self, row: int) -> Prompt:
        """What a module is told of a prompt, [1, ...]."""
        x = torch.zeros(1, *self.shape, device=self.device)
        conds = model_conds(self._frozen.model, self._encoded.positive([row]), x, self._latent)
        return Prompt.of_call(conds.get("c_crossattn"), conds, 1)

    def close(self) -> None:
        """Give the memory of its copies of model and VAE back."""
        self._frozen.close()
        let_go(self._decoder)

    def look_up(self) -> None:
        """A point where Cancel takes effect."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._watch is not None:
            self._watch()

    def _call(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        conditioning: Conditioning,
        module: torch.nn.Module | None,
    ) -> Found:
        conds = model_conds(self._frozen.model, conditioning, x, self._latent)
        vectors: Vectors | None = None
        quality: torch.Tensor | None = None
        if module is not None:
            prompt = Prompt.of_call(conds.get("c_crossattn"), conds, len(x))
            level = flow_time(sigma, self._frozen.model.model_sampling)
            said = module(level, prompt.tokens, prompt.mask, prompt.pooled)
            vectors, quality = said.vectors, said.quality
        return Found(self._frozen(x, sigma, conds, vectors).float(), vectors, quality)
