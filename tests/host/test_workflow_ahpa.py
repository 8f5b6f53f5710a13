"""The workflow that trains a LoRA with AHPA: it trains, saves, loads with stock nodes and draws.

Not on v0.3.64, whose loader knows FLUX at its full width only, so not the demo's model.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

if TYPE_CHECKING:
    from comfy_client import ComfyClient, PromptResult
    from comfy_server import ComfyServer

FILE = "Calibri - train a LoRA with AHPA.json"


def pictures(client: ComfyClient, prompt: dict[str, Any], result: PromptResult) -> dict[str, Any]:
    """Filename prefix of each Save Image -> its pictures [N, H, W, 3]."""
    return {
        entry["inputs"]["filename_prefix"]: np.stack(
            [
                np.asarray(Image.open(io.BytesIO(client.image(shown))).convert("RGB"))
                for shown in result.outputs[name]["images"]
            ]
        )
        for name, entry in prompt.items()
        if entry["class_type"] == "SaveImage"
    }


@pytest.mark.slow
def test_it_trains_saves_loads_with_the_stock_loaders_and_draws(
    client: ComfyClient, server: ComfyServer, root: Path
) -> None:
    prompt = client.prompt_from_workflow(root / "workflows" / FILE)
    names = {entry["class_type"]: name for name, entry in prompt.items()}
    training, loader = names["CalibriTrainAHPA"], names["LoraModelLoader"]
    inspector = names["CalibriAHPARouter"]
    prompt[names["CalibriDemoPictures"]]["inputs"]["count"] = 4
    # As it stands it takes a minute or two. Few steps change little, so they are large.
    prompt[training]["inputs"].update(steps=2, batch=4, warm_up=0, learning_rate=0.05)
    prompt[training]["inputs"]["filename_prefix"] = "workflow-ahpa"
    result = client.run(prompt)
    found = pictures(client, prompt, result)
    plain, trained = found["calibri-ahpa-plain"], found["calibri-ahpa-lora"]
    assert plain.shape == trained.shape == (4, 64, 64, 3)
    assert not np.array_equal(plain, trained)
    (saved,) = (server.models / "loras").glob("workflow-ahpa_*.safetensors")
    with safe_open(saved, "np") as file:
        assert "diffusion_model.single_blocks.0.linear1.alpha" in set(file.keys())
    assert saved.name in result.outputs[training]["text"][0]
    (inspected,) = result.outputs[inspector]["text"]
    assert "At full noise (t = 1): middle" in inspected
    previews = {
        entry["inputs"]["images"][1]: len(result.outputs[name]["images"])
        for name, entry in prompt.items()
        if entry["class_type"] == "PreviewImage" and entry["inputs"]["images"][0] == inspector
    }
    assert previews == {0: 1, 1: 1, 2: 1}  # router, features, alignment

    # The same file by its name, through the loader that everybody uses.
    gone = {training, inspector, names["CalibriDemoPictures"], names["ImageInvert"]}
    gone |= {name for name, entry in prompt.items() if entry["class_type"] == "PreviewImage"}
    again = {name: entry for name, entry in prompt.items() if name not in gone}
    model = prompt[loader]["inputs"]["model"]
    again[loader] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": model, "lora_name": saved.name, "strength_model": 1.0},
    }
    redrawn = pictures(client, again, client.run(again))
    assert np.array_equal(redrawn["calibri-ahpa-lora"], trained)
