"""The example workflows for big models run from their files, with a tiny model of the same family
under the big one's name. On the newest ComfyUI: v0.3.64 detects no FLUX this small.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy.model_patcher import ModelPatcher
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from comfyui_calibri.calibri.presets import save_preset

from .background_client import RunsClient
from .combinations import make_preset
from .forked_server import ForkedServer, ForkServer
from .tiny_patchers import SD3, make_model, make_patcher, make_vae
from .tiny_video_and_edit import QWEN_IMAGE, make_video_vae

pytestmark = pytest.mark.slow

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
STAND_INS = Path(__file__).with_name("stand_in_nodes.py")
TEXT_ENCODERS = ("clip_l", "clip_g", "t5xxl_fp16", "qwen_2.5_vl_7b_fp8_scaled")
CHECKPOINTS = ("sd3.5_medium", "sd3.5_medium_incl_clips_t5xxlfp8scaled")

Prompt = dict[str, dict[str, Any]]


def make_family(name: str) -> ModelPatcher:
    """The tiny model of a workflow, the same at each call."""
    if name == "Qwen-Image":
        return make_patcher("QwenImage", QWEN_IMAGE)
    if name == "SD3.5 medium":
        return make_patcher("SD3", {**SD3, "x_block_self_attn_layers": [0]})
    return make_model("flux")


def weights_of(model: ModelPatcher) -> dict[str, Tensor]:
    return dict(model.model.diffusion_model.state_dict())


def write_models(models: Path) -> None:
    """The files that the workflows name, tiny."""

    def write(folder: str, name: str, weights: Mapping[str, Tensor]) -> Path:
        path = models / folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
        return path

    write("diffusion_models", "flux1-dev", weights_of(make_family("FLUX.1-dev")))
    qwen = write("diffusion_models", "qwen_image_fp8_e4m3fn", weights_of(make_family("Qwen-Image")))
    described = {"class": "QwenImage", "options": QWEN_IMAGE}
    qwen.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    decoder = make_vae().first_stage_model.state_dict()
    write("vae", "ae", decoder)
    write("vae", "qwen_image_vae", make_video_vae().first_stage_model.state_dict())
    parts = {"model.diffusion_model.": weights_of(make_family("SD3.5 medium"))}
    parts["first_stage_model."] = decoder
    whole = {prefix + key: part[key] for prefix, part in parts.items() for key in part}
    for name in CHECKPOINTS:
        write("checkpoints", name, whole)
    for name in TEXT_ENCODERS:  # only their names count
        write("text_encoders", name, {})


@pytest.fixture(scope="module")
def server(
    fork_server: ForkServer, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    """A server whose models folder has tiny files under the big models' names."""
    forked = ForkedServer(fork_server, comfyui, tmp_path_factory.mktemp("big"))
    shutil.copyfile(STAND_INS, forked.folder / "base" / "custom_nodes" / STAND_INS.name)
    write_models(forked.models)
    (forked.models / "calibri").mkdir(exist_ok=True)
    with forked as running:
        yield running


@pytest.fixture
def client(server: ForkedServer) -> RunsClient:
    return RunsClient(server.url)


def small_prompt(client: RunsClient, name: str) -> Prompt:
    """The workflow's prompt as it stands, with small pictures in few steps."""
    prompt = client.prompt_from_workflow(WORKFLOWS / f"Calibri - {name}.json")
    for node in prompt.values():
        for key, value in (("width", 64), ("height", 64), ("steps", 2)):
            if isinstance(node["inputs"].get(key), int):
                node["inputs"][key] = value
        if node["_meta"]["title"] == "Steps of both":
            node["inputs"]["value"] = 2
    return prompt


@pytest.mark.parametrize("family", ["FLUX.1-dev", "SD3.5 medium", "Qwen-Image"])
def test_a_preset_changes_the_second_picture_and_its_absence_not_the_first(
    client: RunsClient, server: ForkedServer, family: str
) -> None:
    prompt = small_prompt(client, f"{family} with a preset")
    without = client.run(prompt)
    assert list(shown(client, prompt, without.outputs)) == ["Plain"]

    save_preset(server.models / "calibri" / f"{family}.safetensors", preset_for(family))
    (load,) = (node for node in prompt.values() if node["class_type"] == "CalibriLoadPreset")
    load["inputs"]["preset_name"] = f"{family}.safetensors"
    # Another seed: ComfyUI does not show again what it has shown.
    for node in prompt.values():
        if node["_meta"]["title"] == "Seed of both":
            node["inputs"]["value"] = 2
    pictures = shown(client, prompt, client.run(prompt).outputs)
    plain, calibrated = pictures["Plain"], pictures["Calibrated"]
    assert plain.shape == calibrated.shape == (64, 64, 3)
    assert plain.std() > 1
    assert not np.array_equal(plain, calibrated)


def preset_for(family: str) -> Any:
    return make_preset(make_family(family), "single")


def test_your_own_checkpoint_is_calibrated_in_the_background(
    client: RunsClient, server: ForkedServer
) -> None:
    prompt = small_prompt(client, "calibrate your own checkpoint")
    for node in prompt.values():
        if node["class_type"] == "CalibriCalibrateBackground":
            node["inputs"].update(
                generations=1, bucket_size=2, run_name="own", idle_seconds=0.2, keep_anyway=True
            )
        if node["class_type"] == "CalibriLoadReward":  # 3.9 GB
            node.update(class_type="CalibriTestReward", inputs={})
        if node["class_type"] == "CalibriPromptTemplate":
            assert node["inputs"]["count"] > 100
            node["inputs"]["count"] = 12
    pictures = shown(client, prompt, client.run(prompt).outputs)
    assert np.array_equal(pictures["Plain"], pictures["Calibrated"])  # nothing is found yet
    ended = client.finished("own")
    assert (server.models / "calibri" / ended["preset"]).is_file()


def shown(client: RunsClient, prompt: Prompt, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Title of a Save Image -> the picture it shows, [H, W, 3]."""
    found = {}
    for number, output in outputs.items():
        if prompt[number]["class_type"] == "SaveImage":
            (image,) = output["images"]
            picture = Image.open(io.BytesIO(client.image(image))).convert("RGB")
            found[prompt[number]["_meta"]["title"]] = np.asarray(picture)
    return dict(sorted(found.items(), reverse=True))
