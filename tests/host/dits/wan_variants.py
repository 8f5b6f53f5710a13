"""Wan's kin with more than its blocks: control, sound, faces, poses, music."""

from __future__ import annotations

from typing import Any

from comfy.ldm.wan.model import CameraWanModel, HumoWanModel, VaceWanModel, WanModel_S2V
from comfy.ldm.wan.model_animate import AnimateWanModel
from torch import Tensor, nn

from .case import DitCase
from .wan import FRAMES, HEIGHT, LATENTS, LATENTS_AND_IMAGE, WIDTH, Inputs, denoise, full, make


def vace(model: nn.Module, rows: slice) -> Tensor:
    """Two control videos, one weaker than the other."""
    inputs = Inputs(model, rows)
    control = inputs(2, 6, FRAMES, HEIGHT, WIDTH)
    return denoise(model, inputs, vace_context=control, vace_strength=[1.0, 0.5])


def camera(model: nn.Module, rows: slice) -> Tensor:
    inputs = Inputs(model, rows)
    rays = inputs(3, FRAMES, 8 * HEIGHT, 8 * WIDTH)
    return denoise(model, inputs, clip_fea=inputs.clip(), camera_conditions=rays)


def speech_to_video(model: nn.Module, rows: slice) -> Tensor:
    """With sound, a reference image, the frames before and a control video."""
    inputs = Inputs(model, rows)
    return denoise(
        model,
        inputs,
        audio_embed=inputs(25, 8, 4 * FRAMES),
        reference_latent=inputs(16, 1, HEIGHT, WIDTH),
        reference_motion=inputs(16, 19, 2 * HEIGHT, 2 * WIDTH),
        control_video=inputs(16, FRAMES, HEIGHT, WIDTH),
    )


def humo(model: nn.Module, rows: slice) -> Tensor:
    inputs = Inputs(model, rows)
    sound, reference = inputs(FRAMES, 8, 5, 1280), inputs(4, 1, HEIGHT, WIDTH)
    return denoise(model, inputs, audio_embed=sound, reference_latent=reference)


def animate(model: nn.Module, rows: slice) -> Tensor:
    """With the driving poses and face; four pictures of the face to a latent frame."""
    inputs = Inputs(model, rows)
    return denoise(
        model,
        inputs,
        clip_fea=inputs.clip(),
        pose_latents=inputs(16, FRAMES - 1, HEIGHT, WIDTH),
        face_pixel_values=inputs(3, 4 * (FRAMES - 1), 4, 4),
    )


def animate_2(model: nn.Module, rows: slice) -> Tensor:
    """The blocks run on the poses too; the first frame is the reference."""
    inputs = Inputs(model, rows)
    poses = inputs(16, FRAMES - 1, HEIGHT, WIDTH)
    return denoise(model, inputs, clip_fea=inputs.clip(), pose_latents=poses)


def dance(model: nn.Module, rows: slice) -> Tensor:
    """Each latent frame hears eight pieces of music, so its tokens are a multiple of eight."""
    inputs = Inputs(model, rows)
    return denoise(
        model,
        inputs,
        x=inputs(4, FRAMES, 8, 8),
        clip_fea=inputs.clip(),
        clip_fea_ref=inputs.clip(),
        audio_embed=inputs(5, 35),
        audio_inject_scale=0.8,
    )


def pose(model: nn.Module, rows: slice) -> Tensor:
    """SCAIL: poses at half the size, a reference in front of the frames."""
    inputs = Inputs(model, rows)
    channels = int(model.in_dim)
    return denoise(
        model,
        inputs,
        clip_fea=inputs.clip(),
        pose_latents=inputs(channels, FRAMES, HEIGHT // 2, WIDTH // 2),
        reference_latent=inputs(channels, 1, HEIGHT, WIDTH),
    )


def pose_and_masks(model: nn.Module, rows: slice) -> Tensor:
    """SCAIL-2: masks say who is who."""
    inputs = Inputs(model, rows)
    channels = int(model.in_dim)
    return denoise(
        model,
        inputs,
        clip_fea=inputs.clip(),
        pose_latents=inputs(channels, FRAMES, HEIGHT // 2, WIDTH // 2),
        reference_latent=inputs(channels, 1, HEIGHT, WIDTH),
        ref_mask_latents=inputs(28, FRAMES + 1, HEIGHT, WIDTH),
        sam_latents=inputs(28, FRAMES, HEIGHT // 2, WIDTH // 2),
        ref_mask_flag=False,
    )


def make_animate() -> nn.Module:
    """With one face block, and a face encoder that takes pictures of 4 pixels instead of 512."""
    model = make(AnimateWanModel, num_layers=5)
    layers: Any = model.get_submodule("motion_encoder.enc.net_app.convs")
    del layers[1:-1]  # each halves the picture
    layers[1].weight = nn.Parameter(layers[1].weight[:, :32].clone(), requires_grad=False)
    return model


def make_animate_2(**changes: Any) -> nn.Module:
    from comfy.ldm.wan.model_animate2 import WanAnimate2Model

    return make(WanAnimate2Model, **{"in_dim": 36, **changes})


def make_wandancer(**changes: Any) -> nn.Module:
    from comfy.ldm.wan.model_wandancer import WanDancerModel

    return make(WanDancerModel, **{"audio_inject_layers": [0, 1], **changes})


def make_scail(**changes: Any) -> nn.Module:
    from comfy.ldm.wan.model import SCAILWanModel

    return make(SCAILWanModel, **changes)


def make_scail_2(**changes: Any) -> nn.Module:
    from comfy.ldm.wan.model import SCAIL2WanModel

    return make(SCAIL2WanModel, **changes)


CASES = (
    DitCase(
        name="Wan VACE",
        family="wan",
        make=lambda: make(VaceWanModel, vace_layers=2, vace_in_dim=6),
        call=vace,
        sizes={
            "Wan2.1-VACE-1.3B": lambda: full(
                "1.3B", VaceWanModel, vace_layers=15, vace_in_dim=96, **LATENTS
            ),
            "Wan2.1-VACE-14B": lambda: full(
                "14B", VaceWanModel, vace_layers=8, vace_in_dim=96, **LATENTS
            ),
        },
        additions_between_blocks=True,
    ),
    DitCase(
        name="Wan Camera",
        family="wan",
        make=lambda: make(CameraWanModel, in_dim_control_adapter=3),
        call=camera,
    ),
    DitCase(
        name="Wan S2V",
        family="wan",
        make=lambda: make(WanModel_S2V, in_dim=16, audio_dim=8, audio_inject_layers=[0, 1]),
        call=speech_to_video,
        sizes={"Wan2.2-S2V-14B": lambda: full("14B", WanModel_S2V, audio_dim=1024, **LATENTS)},
        additions_between_blocks=True,
    ),
    DitCase(
        name="Wan HuMo",
        family="wan",
        make=lambda: make(HumoWanModel),
        call=humo,
        sizes={
            "HuMo-1.7B": lambda: full("1.3B", HumoWanModel, **LATENTS),
            "HuMo-17B": lambda: full("14B", HumoWanModel, **LATENTS_AND_IMAGE),
        },
    ),
    DitCase(
        name="Wan Animate",
        family="wan",
        make=make_animate,
        call=animate,
        sizes={"Wan2.2-Animate-14B": lambda: full("14B", AnimateWanModel, **LATENTS_AND_IMAGE)},
        additions_between_blocks=True,
    ),
    DitCase(
        name="Wan Animate 2",
        family="wan",
        make=make_animate_2,
        call=animate_2,
        note="a coefficient scales its branch in the pass over the poses too",
    ),
    DitCase(
        name="WanDancer",
        family="wan",
        make=make_wandancer,
        call=dance,
        additions_between_blocks=True,
    ),
    DitCase(name="Wan SCAIL", family="wan", make=make_scail, call=pose),
    DitCase(name="Wan SCAIL-2", family="wan", make=make_scail_2, call=pose_and_masks),
)
