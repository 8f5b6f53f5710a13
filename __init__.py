"""Calibri for ComfyUI: calibrate the residual branches of a Diffusion Transformer.

ComfyUI imports this folder from custom_nodes/ and asks `comfy_entrypoint` for the nodes; everything
else in the pack is loaded from there, so that `import comfyui_calibri` needs neither ComfyUI nor
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import CalibriExtension

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> CalibriExtension:
    """The pack's nodes, for ComfyUI."""
    from .nodes.extension import CalibriExtension

    return CalibriExtension()
