"""Where a comparison's finished batches lie: a small file each, named by what was drawn.

A file holds scores, images of at most 32 pixels a side for diversity (12 KB each) and, of batches
that the grid shows, its pictures. Files that are no longer wanted may be deleted at any time: what
is missing or damaged is drawn again.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from .atomic_file import write_atomically
from .comparison_course import Part

SUFFIX = ".npz"


class PartFolder:
    """A `Keeper` in a folder, which is made when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Part | None:
        """What was kept under this key; None where there is no whole file of it."""
        try:
            # Without pickles a file of any origin is safe to open.
            with np.load(self.folder / f"{key}{SUFFIX}", allow_pickle=False) as file:
                return Part(
                    scores=dict(zip(file["rewards"].tolist(), file["scores"], strict=True)),
                    small=file["small"],
                    pictures=dict(zip(file["places"].tolist(), file["pictures"], strict=True)),
                    seconds=float(file["seconds"]),
                    nfe=int(file["nfe"]),
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None  # damaged, by a power cut for instance

    def keep(self, key: str, part: Part) -> None:
        """Write the file, wholly or not at all. Raises OSError with the mend."""
        data = BytesIO()
        np.savez_compressed(
            data,
            rewards=np.array(list(part.scores)),
            scores=np.array(list(part.scores.values())),
            small=part.small,
            places=np.array(list(part.pictures), dtype=np.int64),
            pictures=np.array(list(part.pictures.values()), dtype=np.uint8),
            seconds=np.array(part.seconds),
            nfe=np.array(part.nfe),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{key}{SUFFIX}", data.getvalue())
        except OSError as error:
            raise OSError(
                error.errno,
                f"What was drawn could not be kept in {self.folder} ({error.strerror}): free some "
                "disk space and run again; all batches before this one are kept.",
            ) from error
