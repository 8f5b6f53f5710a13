"""Calibri: coefficients on a DiT's residual branches, how they act and how they are found.

Torch and numpy, no ComfyUI. `backbones` says where a DiT's branches are, `coefficients` names and
groups them, `taps` makes them act, `presets` keeps them.
"""
