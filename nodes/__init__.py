"""The rooms that know ComfyUI: nodes, sockets and ComfyUI's sampler as an evaluator.

Start at `extension.py` for the list of nodes, at `patching.py` for how a model is scaled.
Node modules import what only a run needs inside `execute`, so that it costs nothing at ComfyUI's
start.
"""
