"""Which files a workflow's model, text encoder, VAE and rewards come from, read off its graph.

Only where a stock loader, or one of this pack's, is linked directly: what other nodes have changed
is in no file, and is then left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calibri.settings import ModelNames

Graph = Mapping[str, Any]

_CLIPS = {
    "CLIPLoader": ("clip_name",),
    "DualCLIPLoader": ("clip_name1", "clip_name2"),
    "TripleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3"),
    "QuadrupleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3", "clip_name4"),
    "CalibriLoadDemoTextEncoder": ("text_encoder",),
}


def model_names(graph: Graph, node: str) -> ModelNames:
    """The files of what is linked to `node`'s model, clip and vae; "" where they are not known."""
    model, clip, vae = (_linked(graph, node, name) for name in ("model", "clip", "vae"))
    preview = _linked(graph, node, "preview_vae")
    unet = model if _is(model, "UNETLoader") else {}
    known = _CLIPS.get(clip.get("class_type", ""), ())
    encoders = tuple(_value(clip, name) for name in known)
    # A checkpoint's own parts need no name.
    return ModelNames(
        checkpoint=_value(model, "ckpt_name") if _is(model, "CheckpointLoaderSimple") else "",
        diffusion_model=_value(unet, "unet_name"),
        weight_dtype=_value(unet, "weight_dtype").replace("default", ""),
        text_encoders=encoders if all(encoders) else (),
        text_encoder_type=_clip_type(clip),
        vae=_value(vae, "vae_name") if _is(vae, "VAELoader") else "",
        preview_vae=_value(preview, "vae_name") if _is(preview, "VAELoader") else "",
    )


def reward_names(graph: Graph, node: str, inputs: tuple[str, ...]) -> dict[str, str]:
    """What the command line calls the rewards linked to these inputs of `node`, where it can."""
    found = {}
    for name in inputs:
        reward = _linked(graph, node, name)
        if _is(reward, "CalibriDemoReward"):
            found[name] = "demo"
        elif _is(reward, "CalibriLoadReward") or _is(reward, "CalibriLoadExternalReward"):
            found[name] = _value(reward, "reward")
    return {name: called for name, called in found.items() if called}


def _clip_type(clip: Mapping[str, Any]) -> str:
    if clip.get("class_type") not in _CLIPS or _is(clip, "CalibriLoadDemoTextEncoder"):
        return ""
    return _value(clip, "type") or "stable_diffusion"  # what loaders of three and more say


def _linked(graph: Graph, node: str, name: str) -> Mapping[str, Any]:
    """The node that an input is linked to, {} where there is none."""
    link = graph.get(node, {}).get("inputs", {}).get(name)
    found = graph.get(link[0], {}) if isinstance(link, list) and link else {}
    return found if isinstance(found, Mapping) else {}


def _is(node: Mapping[str, Any], kind: str) -> bool:
    return node.get("class_type") == kind


def _value(node: Mapping[str, Any], name: str) -> str:
    value = node.get("inputs", {}).get(name)
    return value if isinstance(value, str) else ""
