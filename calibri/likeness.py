"""Whether two workers draw alike: their versions and devices, and words for what differs.

Equal batches give equal rewards, to the bit, where all of these are the same. Workers of which one
of `MUST` differs are let go; what is in `MAY` differs on many a pool, shows in the last bits if at
all, and is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from .configuration import differing_settings
from .journal import Journal

Surroundings = Mapping[str, str]
"""What a process draws with: a value for any of the names below."""

DEVICE, TORCH, COMFYUI, PACK = "device", "torch", "comfyui", "comfyui-calibri"
PACK_FILES, ATTENTION = "pack's files", "attention"
MUST = {
    DEVICE: "kind of device",
    TORCH: "PyTorch",
    COMFYUI: "ComfyUI",
    PACK: "ComfyUI-Calibri",
    PACK_FILES: "files of ComfyUI-Calibri",
    ATTENTION: "attention",
}
MEND = "Install the same on all machines, or give --mixed-workers"
MAY = {
    "device name": "device",
    "threads": "number of threads",
    "python": "Python",
    "numpy": "NumPy",
    "transformers": "transformers",
    "comfyui's files": "files of ComfyUI",
}


class Draws(Protocol):
    """What a worker tells of itself."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What it draws (`configuration.run_record`)."""
        ...

    @property
    def surroundings(self) -> Surroundings:
        """With what it draws it."""
        ...


class Likeness:
    """A pool's `Check`: takes workers that draw what the first one draws, and with the same; the
    first one as the run was drawn `so_far`. Where workers are to be `mixed`, they may draw with
    anything. `say` hears what may show in the last bits."""

    def __init__(
        self, so_far: Callable[[Draws], Surroundings], mixed: bool, say: Callable[[str], None]
    ) -> None:
        self._so_far, self._mixed, self._say = so_far, mixed, say
        self._noted: set[str] = set()

    def __call__(self, first: Draws | None, told: Draws) -> str:
        if first is None:
            other, whose = self._so_far(told), "the run's so far"
        elif changed := differing_settings(first.record, told.record):
            return f"it would draw otherwise than the first worker: {'; '.join(changed)}"
        else:
            other, whose = first.surroundings, "the first worker's"
        here, names = told.surroundings, MAY
        if self._mixed:
            names = {**MUST, **MAY}
        elif differing := differences(here, other, MUST, whose):
            return f"{differing}. {MEND}"
        note = differences(here, other, names, whose)
        if note and note not in self._noted:
            self._noted.add(note)
            self._say(f"A worker's images may differ in the last bits: {note}.")
        return ""


def differences(
    here: Surroundings, other: Surroundings, names: Mapping[str, str], whose: str
) -> str:
    """Which of `names` differ, in words with both values; "" where none does.

    What only one of them tells is no difference. `whose` is the other one, in the genitive.
    """
    return "; ".join(
        f"its {word} is {here[name]}, {whose} {other[name]}"
        for name, word in names.items()
        if name in here and name in other and not _same(here[name], other[name])
    )


def last_versions(journal: Journal) -> dict[str, str]:
    """What a journal's run was last drawn with, as far as it tells; nothing in a new one."""
    told = [event.detail["versions"] for event in journal.events() if "versions" in event.detail]
    return dict(told[-1]) if told else {}


def digest_of_sources(folders: Iterable[Path]) -> str:
    """A short digest of the Python files below `folders`; ends of lines do not count."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.relative_to(folder.parent).as_posix().encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def _same(one: str, other: str) -> bool:
    """Equal, where a version without a build, "2.11.0", is that of every build, "2.11.0+cu130"."""
    if "+" in one and "+" in other:
        return one == other
    return one.partition("+")[0] == other.partition("+")[0]
