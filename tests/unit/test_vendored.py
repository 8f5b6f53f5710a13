"""What the page brings of others is what they published, byte by byte, with their licence."""

from __future__ import annotations

import hashlib
from pathlib import Path

# The npm package and version, and for each file its name in it; ".mjs", because ComfyUI loads every
# ".js" at the page's start and this is wanted later.
PACKAGE = "uplot@1.6.32"
FILES = {
    "uPlot.esm.mjs": (
        "dist/uPlot.esm.js",
        "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
    ),
    "uPlot.min.css": (
        "dist/uPlot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
    "LICENSE": ("LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}


def test_the_charts_library_is_the_published_one(root: Path) -> None:
    folder = root / "web" / "vendor" / "uplot"
    assert {file.name for file in folder.iterdir()} == FILES.keys()
    for name, (published, digest) in FILES.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert found == digest, f"{name} is not {published} of npm's {PACKAGE}"


def test_nothing_else_is_vendored(root: Path) -> None:
    assert [path.name for path in (root / "web" / "vendor").iterdir()] == ["uplot"]
