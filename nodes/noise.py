"""Noise that belongs to one image, whatever batch the image is drawn in.

Rewards of candidates can only be compared when an image's noise depends on its seed alone: the
noise the sampler starts from and the noise it draws on the way. `row_sampler` gives ComfyUI's
samplers one generator per image through their `noise_sampler` argument; `check_sampler` refuses
those whose images influence each other all the same, found out by running the real sampler
function on a toy model. Seeds mean what they mean in ComfyUI: an image equals the one KSampler
draws alone with that seed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler

NoiseSampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def initial_noise(shape: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
    """Standard normal noise [len(seeds), *shape] on the CPU, each row from its own seed."""
    return _rows(seeds, lambda seed: torch.randn((1, *shape), generator=_generator(seed)))


def row_sampler(
    name: str, seeds: Sequence[int], sigmas: torch.Tensor, like: torch.Tensor
) -> comfy.samplers.KSAMPLER:
    """ComfyUI's sampler `name` for a batch whose row i draws its noise from `seeds[i]` alone.

    `sigmas` [steps + 1] is the schedule it will run, `like` [B, ...] has the latents' shape, device
    and dtype.
    """
    sampler = comfy.samplers.sampler_object(name)
    function = sampler.sampler_function
    if "noise_sampler" in inspect.signature(function).parameters:
        make = _brownian if _calls(function, BrownianTreeNoiseSampler.__name__) else _independent
        noise_sampler = make(seeds, sigmas, like)
        sampler.extra_options = {**sampler.extra_options, "noise_sampler": noise_sampler}
    return sampler


def check_sampler(name: str) -> None:
    """Raise ValueError for an unknown sampler and one whose images depend on their batch."""
    try:
        comfy.samplers.sampler_object(name)
    except AttributeError as error:
        raise ValueError(
            f"The sampler {name[:40]!r} does not exist: choose one of these: "
            f"{', '.join(comfy.samplers.KSampler.SAMPLERS)}."
        ) from error
    if not keeps_rows_apart(name):
        usable = ", ".join(n for n in comfy.samplers.SAMPLER_NAMES if keeps_rows_apart(n))
        raise ValueError(
            f"The sampler {name!r} cannot be used for calibration: it draws noise, or chooses its "
            "steps, for the whole batch, so that an image changes with its neighbours; "
            f"choose one of these: {usable}."
        )


def check_scheduler(name: str) -> None:
    """Raise ValueError for an unknown scheduler, which KSampler would take for its first one."""
    known = comfy.samplers.KSampler.SCHEDULERS
    if name not in known:
        raise ValueError(
            f"The scheduler {name[:40]!r} does not exist: choose one of these: {', '.join(known)}."
        )


@functools.cache
def keeps_rows_apart(name: str) -> bool:
    """Whether each image of a batch comes out as it does alone (a few milliseconds, then known)."""
    seeds = (11, 22, 33)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        try:
            together = _toy_sample(name, seeds)
            alone = torch.cat([_toy_sample(name, (seed,)) for seed in seeds])
        except Exception:  # another pack's sampler may need more than the toy has
            return False
    return bool(together.isfinite().all()) and torch.allclose(together, alone, 1e-4, 1e-5)


def _independent(seeds: Sequence[int], sigmas: torch.Tensor, like: torch.Tensor) -> NoiseSampler:
    """Fresh noise at each call, seeded as ComfyUI's default on the CPU.

    The seed plus one: the image's own seed would draw the initial noise again (v0.3.64 does).
    """
    generators = {seed: _generator(seed + 1) for seed in seeds}
    shape = (1, *like.shape[1:])

    def draw(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        rows = _rows(seeds, lambda seed: torch.randn(shape, generator=generators[seed]))
        return rows.to(device=like.device, dtype=like.dtype)

    return draw


def _brownian(seeds: Sequence[int], sigmas: torch.Tensor, like: torch.Tensor) -> NoiseSampler:
    """Increments of one Brownian path per seed, for the samplers that revisit intervals."""
    distinct = list(dict.fromkeys(seeds))
    path = BrownianTreeNoiseSampler(
        like[:1].expand(len(distinct), *like.shape[1:]),
        sigmas[sigmas > 0].min(),
        sigmas.max(),
        seed=distinct,
        cpu=True,
    )
    rows = torch.tensor([distinct.index(seed) for seed in seeds], device=like.device)
    return lambda sigma, sigma_next: path(sigma, sigma_next).to(like.device)[rows]


def _rows(seeds: Sequence[int], draw: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """One `draw` [1, ...] per distinct seed, laid out by row: candidates share their noise."""
    drawn = {seed: draw(seed) for seed in dict.fromkeys(seeds)}
    return torch.cat([drawn[seed] for seed in seeds])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**64)


def _calls(function: Callable[..., Any], name: str) -> bool:
    """Whether `function`, or a sampler beside it that it calls, refers to `name`."""
    pending, seen = [inspect.unwrap(function)], set()
    while pending:
        current = pending.pop()
        code = getattr(current, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        if name in code.co_names:
            return True
        for called in code.co_names:
            if called.startswith("sample_"):
                pending.append(inspect.unwrap(current.__globals__.get(called)))
    return False


class _ToySampling(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
    """A flow-matching schedule, which is what the calibrated families use."""


class _ToyGuider:
    """As much of a CFGGuider as samplers ask for, around a denoiser that treats rows alike."""

    cfg = 3.0

    def __init__(self) -> None:
        schedule = _ToySampling()
        self.inner_model = SimpleNamespace(model_sampling=schedule)
        self.model_patcher = SimpleNamespace(
            model=self.inner_model, get_model_object=lambda name: getattr(self.inner_model, name)
        )

    def __call__(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> torch.Tensor:
        conditional = torch.tanh(2.0 * x.roll(1, dims=-1))
        return comfy.samplers.cfg_function(
            self.inner_model,
            conditional,
            0.5 * conditional,
            self.cfg,
            x,
            timestep,
            model_options=model_options or {},
        )


def _toy_sample(name: str, seeds: Sequence[int]) -> torch.Tensor:
    guider = _ToyGuider()
    sigmas = torch.tensor([1.0, 0.8, 0.55, 0.3, 0.1, 0.0])
    noise = initial_noise((4, 2, 2), seeds)
    sampler = row_sampler(name, seeds, sigmas, noise)
    options = {"model_options": {"transformer_options": {}}, "seed": 0}
    latent = torch.zeros_like(noise)
    return sampler.sample(guider, sigmas, options, None, noise, latent, None, disable_pbar=True)
