"""ComfyUI inside this process, with the pack's demo model loaded by ComfyUI's own loaders."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo.weights import DIT, REWARD, TEXT_ENCODER, VAE, WEIGHTS
from ..nodes import headless

if TYPE_CHECKING:
    from ..demo.reward import DemoReward
    from ..nodes.sampling import ComfyEvaluator, SamplerSettings


@dataclass(frozen=True)
class DemoPipeline:
    """What the demo's workflow loads: ModelPatcher, CLIP, VAE and the reward."""

    model: Any
    clip: Any
    vae: Any
    reward: DemoReward

    def evaluator(
        self, settings: SamplerSettings, prompts: tuple[str, ...], granularity: str = "gate"
    ) -> ComfyEvaluator:
        """ComfyUI's sampler over `prompts`."""
        from ..calibri.ensemble_space import ensemble_space
        from ..nodes.sampling import ComfyEvaluator

        return ComfyEvaluator(
            self.model,
            self.clip,
            self.vae,
            self.reward,
            ensemble_space(self.space(granularity)),
            settings,
            prompts,
        )

    def patchers(self) -> dict[str, Any]:
        """The ModelPatchers of all that makes a picture."""
        return {"model": self.model, "clip": self.clip.patcher, "vae": self.vae.patcher}

    def space(self, granularity: str = "gate") -> Any:
        """The model's coefficients."""
        from ..calibri.coefficients import coefficient_space
        from ..nodes.patching import backbone_of

        return coefficient_space(backbone_of(self.model), granularity)


def start_comfyui(cpu: bool = True) -> None:
    """Make `import comfy` work in this process, with ComfyUI's folders in a temporary place."""
    sys.dont_write_bytecode = True
    headless.start_comfyui(headless.find_comfyui(), cpu, Path(tempfile.mkdtemp(prefix="calibri-")))


def load_demo(weights: Path = WEIGHTS, cpu: bool = True) -> DemoPipeline:
    """Start ComfyUI inside this process and load the demo; nothing is served."""
    start_comfyui(cpu)
    from ..demo.reward import DemoReward

    files = headless.ModelFiles(
        diffusion_model=weights / DIT, text_encoders=(weights / TEXT_ENCODER,), vae=weights / VAE
    )
    loaded = headless.load(files)
    reward = DemoReward.load(weights / REWARD)
    return DemoPipeline(loaded.model, loaded.clip, loaded.vae, reward)
