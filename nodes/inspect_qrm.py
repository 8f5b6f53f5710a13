"""Inspect QRM: where a module acts and how much of it depends on the prompt, as pictures."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import comfy.samplers
from comfy_api.latest import io

from . import sockets
from .messages import show_on_node

if TYPE_CHECKING:
    import numpy as np
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..qrm.files import QRMFile
    from ..rewards.protocol import Reward


class CalibriInspectQRM(io.ComfyNode):
    """Shows what a QRM does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriInspectQRM",
            display_name="Inspect QRM",
            category="Calibri/QRM",
            description="Asks a QRM about prompts at every noise level: how large its changes are, "
            "in which blocks, and how much of them depends on the prompt. With a reward, also "
            "whether the quality it expects is the quality that is reached.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the QRM is for, without it."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Decodes the pictures that the reward sees."),
                sockets.QRM.Input("qrm", tooltip="From Load QRM or Train QRM."),
                sockets.Prompts.Input(
                    "prompts", tooltip="At least two; those it was not trained on tell more."
                ),
                sockets.Reward.Input(
                    "reward",
                    optional=True,
                    tooltip="Scores a picture of each prompt, drawn with the QRM. Without it "
                    "nothing is drawn.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="simple",
                    tooltip="As in KSampler: its noise levels are looked at.",
                ),
                io.Int.Input("sampling_steps", default=10, min=1, max=100, tooltip="Of it."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=30.0, step=0.1, tooltip="Of the pictures."
                ),
                io.Int.Input("width", default=512, min=16, max=4096, step=16, tooltip="Of them."),
                io.Int.Input("height", default=512, min=16, max=4096, step=16, tooltip="Of them."),
            ],
            outputs=[
                io.Image.Output(display_name="picture"),
                io.String.Output(display_name="numbers"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **sockets.search_aliases("heat map", "adaLN", "modulation", "quality"),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        qrm: QRMFile,
        prompts: tuple[str, ...],
        scheduler: str,
        sampling_steps: int,
        cfg: float,
        width: int,
        height: int,
        reward: Reward | None = None,
    ) -> io.NodeOutput:
        import numpy as np
        import torch

        from ..qrm.figure_inspection import draw_inspection
        from ..qrm.files import check_qrm
        from ..qrm.inspection import Inspection, Seen, inspect, rank_correlation
        from .encoded_prompts import EncodedPrompts
        from .latents import empty_latent
        from .model_conds import model_conds
        from .patching import diffusion_model
        from .qrm_layer import Prompt, flow_time
        from .sampling import SamplerSettings

        check_qrm(qrm, diffusion_model(model))
        device = model.load_device
        settings = SamplerSettings("euler", scheduler, sampling_steps, cfg, None, width, height, "")
        encoded = EncodedPrompts(clip, prompts, "", None, device)
        encoded.encode(comfy.model_management.throw_exception_if_processing_interrupted)
        latent = empty_latent(model, vae, width, height).to(device)
        seen = []
        for row in range(len(prompts)):
            conds = model_conds(model.model, encoded.positive([row]), latent, latent)
            prompt = Prompt.of_call(conds.get("c_crossattn"), conds, 1)
            seen.append(Seen(prompt.tokens, prompt.mask, prompt.pooled))
        sigmas = comfy.samplers.KSampler(
            model, sampling_steps, device, "euler", scheduler, model_options=model.model_options
        ).sigmas[:-1]
        levels = flow_time(sigmas, model.get_model_object("model_sampling")).tolist()
        found: Inspection = inspect(qrm.module, levels, seen)
        numbers = found.record()
        reached = None
        if reward is not None:
            reached = _reached(model, clip, vae, reward, qrm, settings, prompts)
            numbers["reached_quality"] = np.round(reached, 5).tolist()
            numbers["rank_correlation"] = rank_correlation(found.expected, reached)
        picture = draw_inspection(found, reached, "" if reward is None else reward.name)
        say = partial(show_on_node, cls.hidden)
        say(
            f"{found.overall:.1%} of the changes' mean square differs between these "
            f"{len(prompts)} prompts; the rest is the same for all at a noise level."
        )
        image = torch.from_numpy(picture.astype(np.float32) / 255.0)[None]
        return io.NodeOutput(image, json.dumps(numbers))


def _reached(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    reward: Reward,
    qrm: QRMFile,
    settings: object,
    prompts: tuple[str, ...],
) -> np.ndarray:
    """The reward [P] of one picture of each prompt, drawn with the QRM."""
    import numpy as np

    from ..calibri.coefficients import coefficient_space
    from ..calibri.ensemble_space import ensemble_space
    from ..calibri.evaluation import samples
    from .patching import backbone_of
    from .qrm import with_qrm
    from .sampling import ComfyEvaluator

    space = ensemble_space(coefficient_space(backbone_of(model), "block"))
    evaluator = ComfyEvaluator(with_qrm(model, qrm), clip, vae, reward, space, settings, prompts)
    bucket = samples(0, "inspection", 0, range(len(prompts)))
    reached = np.zeros(len(prompts))
    for batch in evaluator.plan(1, bucket):
        found = evaluator.run(batch, space.identity[None], bucket)
        reached[[position for _, position in batch]] = found
    return reached
