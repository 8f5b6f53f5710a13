"""`python -m comfyui_calibri`, see `cli.py`."""

from __future__ import annotations

from .cli import app

app(prog_name="comfyui-calibri")
