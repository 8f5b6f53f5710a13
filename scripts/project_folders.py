"""Where things are: this clone, and .run, the one folder inside it that the two commands write to.

ComfyUI's base, user, input, output and temp folders and its database lie below .run, so that a
ComfyUI found elsewhere is only read. .run also holds links back to this clone: every tool must
exclude it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / ".run"
LOGS = RUN / "logs"
BYTECODE = RUN / "pycache"


def link_folder(link: Path, target: Path) -> None:
    """Make `link` lead to the folder `target`: a symlink, on Windows a junction (needs no
    rights)."""
    if link.exists() and link.samefile(target):
        return
    remove_link(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(target), str(link))
    else:
        link.symlink_to(target, target_is_directory=True)


def remove_link(link: Path) -> None:
    """Remove a symlink or junction, never what it leads to."""
    if link.is_symlink():
        link.unlink()
    elif os.path.lexists(link):
        os.rmdir(link)  # a junction; a real folder with files in it is refused


def environment_variables(**added: str) -> dict[str, str]:
    """This process's variables and `added`, for a child whose Python writes its .pyc files into
    .run instead of into the folders they belong to.

    Also where they forbid .pyc files, as those of containers often do: without any, ComfyUI
    compiles all of PyTorch at each start.
    """
    bytecode = {"PYTHONPYCACHEPREFIX": str(BYTECODE), "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **added, **bytecode}
