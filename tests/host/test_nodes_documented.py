"""Every node has its name to itself and a page of its own, and every page belongs to a node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from comfyui_calibri.nodes.extension import CalibriExtension

pytestmark = pytest.mark.oldest


def test_every_node_is_listed_once_and_has_its_page(root: Path) -> None:
    nodes = asyncio.run(CalibriExtension().get_node_list())
    ids = sorted(node.GET_SCHEMA().node_id for node in nodes)
    assert all(name.startswith("Calibri") for name in ids)
    pages = root / "web" / "docs"
    assert ids == sorted(page.stem for page in pages.glob("*.md"))
    assert not [page.name for page in pages.iterdir() if page.suffix != ".md"]
    assert all((pages / f"{name}.md").read_text(encoding="utf-8").startswith("# ") for name in ids)
