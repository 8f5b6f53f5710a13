"""What `train` learns from: pictures, VAE and encoders, the demo's own or the user's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..ahpa.autoencoder import VAE, Scaling, load_vae
from ..ahpa.extraction import VisionEncoder
from ..ahpa.full_subject import Conditions
from ..ahpa.picture_folder import TOLD, Pictures, read_folder
from ..ahpa.targets import encoder_mark, tokens_on_grid
from ..ahpa.transformers_folder import ClipText, VisionFolder
from ..demo.autoencoder import FACTOR, LATENT_CHANNELS, Autoencoder
from ..demo.prompts import is_held_out, to_text
from ..demo.render import render
from ..demo.reward import DemoReward
from ..demo.scenes import IMAGE_SIZE, sample_pairs
from ..demo.text_encoder import IDS, TextEncoder, token_rows
from ..demo.weights import REWARD, TEXT_ENCODER, WEIGHTS, load_into
from ..demo.weights import VAE as DEMO_VAE

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Where the pictures are, and what encodes them; None where it is not given."""

    data: Path | None
    told: str  # "captions", "classes" or "either"
    demo: bool
    scenes: int  # that the demo draws where no folder is given
    vae: Path | None
    text_encoder: Path | None
    vision: Path | None


class DemoScenes:
    """Scenes as the demo's DiT was trained on, with captions; satisfies `Pictures`."""

    size = IMAGE_SIZE
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    def __init__(self, count: int, seed: int = 0) -> None:
        pixels, captions = [], []
        for description, scene in sample_pairs(seed, arranged=True):
            text = to_text(description)
            if not is_held_out(text):
                pixels.append(torch.from_numpy(render(scene)).permute(2, 0, 1))
                captions.append(text)
            if len(captions) == count:
                break
        self._pixels, self.captions = torch.stack(pixels), tuple(captions)
        self.marks = tuple(f"demo {seed} {number}" for number in range(count))

    def crops(self, numbers: Sequence[int]) -> Tensor:
        """[B, 3, 64, 64] in 0…1."""
        return self._pixels[list(numbers)].float() / 255


class DemoVision:
    """The map of the demo's detector, which REPA can be aligned to."""

    def __init__(self, device: torch.device) -> None:
        self._detector = DemoReward.load(WEIGHTS / REWARD).detector.to(device)
        self.mark = encoder_mark(self._detector, ())

    @torch.no_grad()
    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """One level, of pictures at the demo's size."""
        size = (IMAGE_SIZE, IMAGE_SIZE)
        small = nn.functional.interpolate(pictures, size, mode="area")
        found = self._detector.body(self._detector.stem(2 * small - 1))
        return [tokens_on_grid(found.flatten(2).transpose(1, 2), grid)]


def read_vae(sources: Sources) -> VAE:
    """The user's, or the demo's. Raises ValueError where there is none or it cannot be read."""
    if sources.vae is not None:
        return load_vae(sources.vae)
    if not sources.demo:
        raise ValueError("There is no VAE: give one with --vae, or --demo for the pack's own.")
    model = load_into(Autoencoder(), DEMO_VAE)

    def decode(latents: Tensor) -> Tensor:
        return model.decode(latents).clamp(0, 1)

    return VAE(
        model,
        model.taesd_encoder,
        LATENT_CHANNELS,
        FACTOR,
        model.encode,
        decode,
        Scaling(1.0),  # its latents have unit variance as they are
    )


def read_pictures(sources: Sources, size: int) -> Pictures:
    """The folder's, or the demo's scenes. Raises ValueError in one sentence."""
    if sources.told not in TOLD:
        raise ValueError(f"--told is {sources.told!r}: choose one of {', '.join(TOLD)}.")
    if sources.data is not None:
        return read_folder(sources.data, size, sources.told)
    if not sources.demo:
        raise ValueError("There are no pictures: give a folder with --data, or --demo.")
    if size != IMAGE_SIZE:
        raise ValueError(f"The demo draws {IMAGE_SIZE} pixels a side: leave --size out, or --data.")
    return DemoScenes(sources.scenes)


def read_conditions(
    sources: Sources, pictures: Pictures, classes: Sequence[str] | int | None, device: torch.device
) -> tuple[Conditions, str]:
    """What the model is told of each picture, and a mark of the text encoder.

    `classes` are the names or the number of those that the model to be fine-tuned knows. Raises
    ValueError where they differ from the folder's, or where there is nothing to encode captions.
    """
    if pictures.labels:
        known = classes if isinstance(classes, int) else len(classes or pictures.classes)
        if known != len(pictures.classes) or (
            classes and not isinstance(classes, int) and tuple(classes) != pictures.classes
        ):
            raise ValueError(
                f"The folder has {len(pictures.classes)} classes (subfolders) and the model knows "
                f"{known} or others: give it a subfolder for each of its classes, of the same "
                "names, empty ones too."
            )
        return Conditions.of_classes(pictures.labels, len(pictures.classes)), ""
    if sources.text_encoder is not None:
        clip = ClipText(sources.text_encoder, device)
        return Conditions.of_captions(pictures.captions, clip), clip.mark
    if not sources.demo:
        raise ValueError(
            "There is nothing to read the captions with: give a CLIP's folder with --text-encoder, "
            "or sort the pictures into a subfolder for each class and say --told classes."
        )
    encoder = load_into(TextEncoder(), TEXT_ENCODER)

    @torch.no_grad()
    def encode(captions: list[str]) -> Sequence[Tensor]:
        context, pooled = encoder(token_rows(captions))
        return context, pooled

    return Conditions.of_captions(pictures.captions, encode), encoder_mark(encoder, ())


def unknown_words(captions: Sequence[str]) -> list[str]:
    """Those of captions that the demo's text encoder does not know, each once."""
    words = {word for caption in captions for word in caption.lower().split()}
    return sorted(word for word in words if word.strip(".,;:!?") not in IDS)


def read_vision(sources: Sources, device: torch.device) -> VisionEncoder | None:
    """What `repa` aligns to, where there is any."""
    if sources.vision is not None:
        return VisionFolder(sources.vision, device)
    return DemoVision(device) if sources.demo else None


def mark_of(texts: Sequence[str]) -> str:
    """A hash of a list of texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]
