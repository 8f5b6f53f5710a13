"""A run's prompts as conditionings, each encoded once, and kept on disk where that took long."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from . import identity, prompt_store, runs
from .conditioning import Conditioning, encode, signature, stack

if TYPE_CHECKING:
    from comfy.sd import CLIP


class EncodedPrompts:
    """Encodes `prompts` and the `negative` prompt when they are first asked for.

    `guidance` is FluxGuidance's; conditionings for sampling are on `device`.
    """

    def __init__(
        self,
        clip: CLIP,
        prompts: Sequence[str],
        negative: str,
        guidance: float | None,
        device: torch.device,
    ) -> None:
        self.prompts = tuple(prompts)
        self._clip: CLIP | None = clip  # until all is encoded
        self._negative_text, self._guidance, self._device = negative, guidance, device
        self._conditionings: list[Conditioning] = []
        self._signatures: list[Hashable] = []
        self._negative: Conditioning = []
        self._stacked: tuple[tuple[int, ...], Conditioning] | None = None
        self._seconds = 0.0  # that encoding has taken so far

    def take_over(self, other: EncodedPrompts) -> None:
        """Go on with what `other` has encoded, of the same prompts with the same text encoder."""
        if other._clip is None:
            self._conditionings, self._signatures = other._conditionings, other._signatures
            self._negative, self._clip = other._negative, None

    def encode(self, look_up: Callable[[], None]) -> None:
        """Encode what is not encoded yet: where that was stopped, it goes on.

        `look_up` is called before each prompt; what it raises ends this.
        """
        if self._clip is None:
            return
        file = prompt_store.file_of(
            (*self.prompts, self._negative_text), self._guidance, _told_of(self._clip)
        )
        kept = None if self._conditionings else prompt_store.find(file, len(self.prompts) + 1)
        if kept is not None:
            *self._conditionings, negative = kept
            self._signatures = [signature(conditioning) for conditioning in self._conditionings]
        else:
            negative = self._encode_all(self._clip, look_up)
            if self._seconds >= prompt_store.WORTH_SECONDS:
                prompt_store.keep(file, [*self._conditionings, negative])
        self._negative = stack([negative], self._device)
        self._clip = None

    def _encode_all(self, clip: CLIP, look_up: Callable[[], None]) -> Conditioning:
        """Encode the prompts that are left; returns the negative one."""
        began = time.monotonic()
        try:
            while len(self._conditionings) < len(self.prompts):
                look_up()
                text = self.prompts[len(self._conditionings)]
                conditioning = encode(clip, text, self._guidance)
                self._signatures.append(signature(conditioning))
                self._conditionings.append(conditioning)
            return encode(clip, self._negative_text, self._guidance)
        finally:
            self._seconds += time.monotonic() - began

    def signature(self, prompt: int) -> Hashable:
        """Equal for prompts that may share a batch."""
        return self._signatures[prompt]

    @property
    def negative(self) -> Conditioning:
        """The negative prompt's conditioning, of one row."""
        return self._negative

    def positive(self, prompts: Sequence[int]) -> Conditioning:
        """The conditionings of `prompts`, row by row; the next batch often asks for the same."""
        key = tuple(prompts)
        if self._stacked is None or self._stacked[0] != key:
            rows = [self._conditionings[prompt] for prompt in prompts]
            self._stacked = (key, stack(rows, self._device))
        return self._stacked[1]


def _told_of(clip: CLIP) -> str:
    """All that decides what a text becomes, to the last bit."""
    versions = {**runs.host_versions(), "torch": torch.__version__}
    return f"{identity.of_clip(clip)} {clip.patcher.load_device.type} {versions}"
