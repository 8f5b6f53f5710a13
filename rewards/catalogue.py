"""The published rewards that run in ComfyUI's own process: where their files come from.

Nothing here downloads anything; the addresses are for the person who reads an error message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """A reward's weights file as its authors publish it.

    `patterns` match its name in lower case, those with a "/" with its folder. `megabytes` is the
    download's size.
    """

    kind: str
    file: str
    patterns: tuple[str, ...]
    megabytes: int
    licence: str
    source: str

    def find(self, names: Iterable[str]) -> str | None:
        """The first of `names` that is this file; a shorter name goes before a longer."""
        fitting = [name for name in names if self.fits(name)]
        return min(fitting, key=lambda name: (len(name), name), default=None)

    def fits(self, name: str) -> bool:
        """Whether `name` is one under which this file is published."""
        whole = name.replace("\\", "/").lower()
        last = whole.rsplit("/", 1)[-1]
        if "te-only" in last:  # half of a CLIP
            return False
        return any(fnmatch(whole if "/" in pattern else last, pattern) for pattern in self.patterns)

    def missing(self, place: str) -> str:
        """What to say where the file is not in the folder `place`."""
        large = self.megabytes >= 1000
        size = f"{self.megabytes / 1000:.1f} GB" if large else f"{self.megabytes} MB"
        return (
            f"{self.kind} needs {self.file} in {place} ({size}, {self.licence}): download it from "
            f"{self.source} and press R."
        )


def called(path: Path) -> str:
    """What people call a weights file: its stem, or its folder where every model's is "model"."""
    generic = path.stem in ("model", "pytorch_model", "open_clip_pytorch_model")
    return path.parent.name if generic else path.stem


IMAGE_REWARD = Published(
    "ImageReward",
    "ImageReward.pt",
    ("*imagereward*.pt", "*imagereward*.safetensors"),
    1790,
    "Apache-2.0",
    "https://huggingface.co/THUDM/ImageReward",
)
PICK_SCORE = Published(
    "PickScore",
    "PickScore_v1/model.safetensors",
    ("*pickscore*", "*pickscore*/*model.*"),
    3945,
    "MIT",
    "https://huggingface.co/yuvalkirstain/PickScore_v1",
)
HPS_V2_1 = Published(
    "HPSv2.1",
    "HPS_v2.1_compressed.pt",
    ("*hps*v2.1*", "*hps*v2.1/*"),
    1970,
    "Apache-2.0",
    "https://huggingface.co/xswu/HPSv2",
)
HPS_V2 = Published(
    "HPSv2",
    "HPS_v2_compressed.pt",
    ("hps_v2_*", "hpsv2_*", "hps*v2.pt", "hps*v2.safetensors", "hps*v2.0*", "*hpsv2/model.*"),
    1970,
    "Apache-2.0",
    "https://huggingface.co/xswu/HPSv2",
)
CLIP_SCORE = Published(
    "CLIPScore",
    "clip-vit-large-patch14/model.safetensors",
    ("*clip*vit*", "*clip*vit*/model.safetensors", "*vit-l-14*", "*vit-b-32*"),
    1710,
    "MIT",
    "https://huggingface.co/openai/clip-vit-large-patch14",
)
AESTHETIC = Published(
    "LAION aesthetic",
    "sac+logos+ava1-l14-linearMSE.pth",
    ("*sac+logos+ava1-l14*", "*sa_0_4_vit_l_14_linear*", "*aesthetic*"),
    4,
    "Apache-2.0",
    "https://github.com/christophschuhmann/improved-aesthetic-predictor",
)
AESTHETIC_CLIP = Published(
    "LAION aesthetic",
    "clip-vit-large-patch14/model.safetensors",
    (
        "*clip*vit*large*patch14/model.safetensors",
        "*clip*vit*large*patch14.*",
        "*vit*l*14*",
        "clip_vision_l.*",
    ),
    1710,
    "MIT",
    "https://huggingface.co/openai/clip-vit-large-patch14",
)
KINDS = {
    entry.kind: entry
    for entry in (IMAGE_REWARD, PICK_SCORE, HPS_V2_1, HPS_V2, CLIP_SCORE, AESTHETIC)
}
BERT_SOURCE = "https://huggingface.co/google-bert/bert-base-uncased"
