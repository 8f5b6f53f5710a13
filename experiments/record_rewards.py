"""Scores and gradients of the original reward packages, for tests/host/test_rewards_exact.py.

The originals need packages that ComfyUI's environment must not have, so this runs alone:

    uv venv /tmp/originals --python 3.11
    uv pip install --python /tmp/originals/bin/python image-reward transformers==4.55.4 \\
        clip-anytorch torch==2.11.0 torchvision==0.26.0 ftfy regex
    uv pip install --python /tmp/originals/bin/python --no-deps hpsv2==1.2.0
    /tmp/originals/bin/python experiments/record_rewards.py <ComfyUI's folder>

Every model is the package's own class at a small size, with the tensors of
tests/reward_originals.py; the preprocessing, tokenizers and arithmetic are the package's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import reward_originals as small  # noqa: E402 - tests/ has just been put on the path

SIZE = 32
Scorer = Callable[[str, Image.Image], float]
Gradient = Callable[[str, torch.Tensor], torch.Tensor]


def fill(model: torch.nn.Module) -> dict[str, list[int]]:
    """Give `model` the small tensors; returns its names and shapes."""
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}
    model.load_state_dict(small.tensors(shapes), strict=False)
    model.float().eval()
    return shapes


def record(score: Scorer, shapes: dict[str, list[int]], preprocess: Any, raw: Any) -> dict:
    """One reward's entry; `raw(prompt, pixels)` is its score from the network's input."""
    scores = []
    for prompt, size in zip(small.PROMPTS, small.SIZES, strict=True):
        scores.append(score(prompt, Image.fromarray(small.picture(*size))))
    pixels = preprocess(Image.fromarray(small.picture(*small.SIZES[0])))[None].requires_grad_()
    raw(small.PROMPTS[0], pixels).sum().backward()
    return {"shapes": shapes, "scores": scores, "gradient": pixels.grad[0, :, ::5, ::5].tolist()}


def image_reward_model(folder: Path) -> tuple[Any, dict[str, list[int]]]:
    """The package's ImageReward, BLIP and all, and the shapes of its tensors.

    Its files go into `folder`.
    """
    from ImageReward.models.BLIP.vit import VisionTransformer
    from transformers import BertTokenizer

    package = importlib.import_module("ImageReward.ImageReward")
    blip_pretrain = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")

    def tokenizer() -> BertTokenizer:
        found = BertTokenizer(str(small.bert_vocabulary(folder / "vocab.txt")))
        found.add_special_tokens({"bos_token": "[DEC]"})
        found.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        return found

    def vision(*_: object) -> tuple[VisionTransformer, int]:
        return VisionTransformer(
            img_size=SIZE, patch_size=16, embed_dim=128, depth=2, num_heads=2, drop_path_rate=0.1
        ), 128

    med = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 1,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": 30524,
        "encoder_width": 128,
        "add_cross_attention": True,
    }
    (folder / "med_config.json").write_text(json.dumps(med))
    blip_pretrain.create_vit, blip_pretrain.init_tokenizer = vision, tokenizer
    transform, head = package._transform, package.MLP
    package._transform, package.MLP = (lambda _: transform(SIZE)), (lambda _: head(64))
    model = package.ImageReward(str(folder / "med_config.json"))
    return model, fill(model)


def image_reward(folder: Path) -> dict:
    """ImageReward's entry."""
    model, shapes = image_reward_model(folder)

    def raw(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        text = model.blip.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        return model.score_gard(text.input_ids, text.attention_mask, pixels)

    return record(model.score, shapes, model.preprocess, raw)


def pick_score(tokenizer_folder: Path) -> dict:
    """The model card's code: transformers' CLIPModel and CLIPProcessor."""
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizerFast,
    )

    tower = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    model = CLIPModel(
        CLIPConfig(
            vision_config={**tower, "hidden_size": 128, "intermediate_size": 256}
            | {"num_attention_heads": 2, "image_size": SIZE, "patch_size": 16},
            text_config={**tower, "hidden_size": 64, "intermediate_size": 128}
            | {"num_attention_heads": 1},
            projection_dim=48,
        )
    )
    shapes = fill(model)
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    words = CLIPTokenizerFast.from_pretrained(str(tokenizer_folder))
    processor = CLIPProcessor(images, words)

    def preprocess(image: Image.Image) -> torch.Tensor:
        return processor(images=image, return_tensors="pt")["pixel_values"][0]

    def raw(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        text = processor(
            text=prompt, padding=True, truncation=True, max_length=77, return_tensors="pt"
        )
        image_vectors = model.get_image_features(pixel_values=pixels)
        image_vectors = image_vectors / torch.norm(image_vectors, dim=-1, keepdim=True)
        text_vectors = model.get_text_features(**text)
        text_vectors = text_vectors / torch.norm(text_vectors, dim=-1, keepdim=True)
        return model.logit_scale.exp() * (text_vectors @ image_vectors.T)[0]

    def score(prompt: str, image: Image.Image) -> float:
        return raw(prompt, preprocess(image)[None]).item()

    return record(score, shapes, preprocess, raw)


def hps_v2() -> dict:
    """hpsv2's own open_clip; its top folders import what is not there, so they are stepped over."""
    import clip

    (top,) = importlib.util.find_spec("hpsv2").submodule_search_locations
    for name, folder in (
        ("hpsv2", Path(top)),
        ("hpsv2.src", Path(top, "src")),
        ("hpsv2.src.open_clip", Path(top, "src", "open_clip")),
    ):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    words = "bpe_simple_vocab_16e6.txt.gz"  # missing from the package
    shutil.copy(Path(clip.__file__).with_name(words), Path(top, "src", "open_clip", words))
    model_file, tokenizer, transform = (
        importlib.import_module(f"hpsv2.src.open_clip.{name}")
        for name in ("model", "tokenizer", "transform")
    )
    model = model_file.CLIP(
        embed_dim=48,
        vision_cfg={"layers": 2, "width": 128, "head_width": 64}
        | {"patch_size": 16, "image_size": SIZE},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
        output_dict=True,
    )
    shapes = fill(model)
    preprocess = transform.image_transform(SIZE, is_train=False, resize_longest_max=True)

    def raw(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        outputs = model(pixels, tokenizer.tokenize([prompt]))
        return torch.diagonal(outputs["image_features"] @ outputs["text_features"].T)

    def score(prompt: str, image: Image.Image) -> float:
        return raw(prompt, preprocess(image)[None]).item()

    return record(score, shapes, preprocess, raw)


def openai_clip() -> tuple[Any, dict[str, list[int]], Any]:
    """OpenAI's CLIP class at a small size, its shapes and its preprocessing."""
    import clip
    from clip.model import CLIP

    model = CLIP(48, SIZE, 2, 128, 16, 77, 49408, 64, 1, 2)
    return model, fill(model), clip.clip._transform(SIZE)


def clip_score() -> dict:
    """image-reward's CLIPScore, times 100."""
    import clip
    from ImageReward.models.CLIPScore import CLIPScore

    scorer = CLIPScore.__new__(CLIPScore)
    torch.nn.Module.__init__(scorer)
    scorer.device = "cpu"
    scorer.clip_model, shapes, scorer.preprocess = openai_clip()

    def raw(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        text = scorer.clip_model.encode_text(clip.tokenize(prompt, truncate=True))
        image = scorer.clip_model.encode_image(pixels)
        return 100 * torch.nn.functional.cosine_similarity(text, image)

    def score(prompt: str, image: Image.Image) -> float:
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            image.save(file.name)
            return 100 * scorer.score(prompt, file.name)

    return record(score, shapes, scorer.preprocess, raw)


def aesthetic() -> dict:
    """image-reward's copy of LAION's predictor on OpenAI's CLIP."""
    from ImageReward.models.AestheticScore import MLP, AestheticScore

    scorer = AestheticScore.__new__(AestheticScore)
    torch.nn.Module.__init__(scorer)
    scorer.device = "cpu"
    scorer.clip_model, clip_shapes, scorer.preprocess = openai_clip()
    scorer.mlp = MLP(48)
    head = fill(scorer.mlp)

    def raw(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        vectors = torch.nn.functional.normalize(scorer.clip_model.encode_image(pixels))
        return scorer.mlp(vectors)

    def score(prompt: str, image: Image.Image) -> float:
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            image.save(file.name)
            return scorer.score(prompt, file.name)

    entry = record(score, head, scorer.preprocess, raw)
    return {**entry, "clip": clip_shapes}


def main(comfyui: Path) -> None:
    """Record every reward."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "ImageReward": image_reward(Path(folder)),
            "PickScore": pick_score(comfyui / "comfy" / "sd1_tokenizer"),
            "HPSv2": hps_v2(),
            "CLIPScore": clip_score(),
            "LAION aesthetic": aesthetic(),
        }
    small.RECORDINGS.write_text(json.dumps(found, indent=1) + "\n")
    for name, entry in found.items():
        print(name, [f"{score:.5f}" for score in entry["scores"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
