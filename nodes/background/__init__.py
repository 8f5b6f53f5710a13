"""Calibration in the background: a run that advances in slices while ComfyUI's queue is empty.

`node.py` begins a run, `timer.py` submits its slices, `slice_work.py` is what one does,
`registry.py` knows all runs, `routes.py` lets a person steer them. docs/background.md tells it
from the outside.
"""
