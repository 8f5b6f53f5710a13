"""The presets of this ComfyUI over HTTP, for the page's gallery and for scripts: /calibri/presets.

Start at `routes.py`; `shelf.py` is the files, `schemas.py` says what is sent and answered.
"""
