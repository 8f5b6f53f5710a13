"""The original ImageReward in an isolated worker, against ours in this process.

    python -m comfyui_calibri.experiments.isolated_imagereward [FOLDER]

Needs PyPI (about 3 GB the first time: the package brings its own PyTorch) and uv. The declaration,
the environment and the worker are those of Load External Reward; the scorer is the package's own
class at the small size, and with the tensors, of `record_rewards.py`. FOLDER keeps the environment.
Prints one JSON line with the largest difference of the scores, and ends with 1 above 1e-6.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from ..rewards.declarations import WorkerDeclaration
from ..rewards.external_reward import external_reward
from ..rewards.imagereward import ImageReward

HERE = Path(__file__).resolve().parent
# record_rewards.py says which packages the original needs today.
PACKAGES = (
    *("image-reward==1.5", "transformers==4.55.4", "clip-anytorch", "ftfy", "regex"),
    *("torch==2.11.0", "torchvision==0.26.0"),
)
SCORER = """
import sys
from pathlib import Path

sys.path.insert(0, {experiments!r})
import record_rewards
from PIL import Image


class SmallOriginal:
    def __init__(self):
        self.model, _ = record_rewards.image_reward_model(Path(__file__).parent)

    def score(self, images, prompts):
        pairs = zip(images, prompts)
        return [self.model.score(prompt, Image.fromarray(image)) for image, prompt in pairs]
"""


def main() -> None:
    """Compare and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        result = compare(folder)
    print(json.dumps(result))
    sys.exit(result["largest difference"] > 1e-6)


def compare(folder: Path) -> dict[str, float]:
    """Seconds of the set-up, scores compared, and their largest difference."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import reward_originals as small  # type: ignore[import-not-found]

    (folder / "small_original.py").write_text(SCORER.format(experiments=str(HERE)))
    declared = WorkerDeclaration(
        kind="worker",
        entry="small_original.py:SmallOriginal",
        python="3.11",
        packages=PACKAGES,
        downloads=True,
        licence="Apache-2.0",
    )
    theirs = external_reward("ImageReward (original)", declared, folder, _say)
    torch.save(small.tensors(small.recordings()["ImageReward"]["shapes"]), folder / "weights.pt")
    ours = ImageReward.load(folder / "weights.pt", small.bert_vocabulary(folder / "vocab.txt"))
    started, largest, count = time.monotonic(), 0.0, 0
    seconds = 0.0
    for prompt, size in zip(small.PROMPTS, small.SIZES, strict=True):
        image = torch.from_numpy(small.picture(*size)).float()[None] / 255.0
        expected = theirs.score(image, [prompt])
        seconds = seconds or time.monotonic() - started
        with torch.inference_mode():
            found = ours.score(image, [prompt])
        largest = max(largest, float((found - expected).abs().max()))
        count += 1
    return {
        "seconds until the first score": round(seconds, 1),
        "scores": count,
        "largest difference": largest,
    }


def _say(words: str, done: int, total: int) -> None:
    if total:
        print(f"{words} ({done}/{total})", file=sys.stderr)


if __name__ == "__main__":
    main()
