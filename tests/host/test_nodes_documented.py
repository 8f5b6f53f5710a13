"""Every node has its name to itself and a page of its own, and every page belongs to a node.

A page shows the node or its result, and says of each input and output what it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from comfy_api.latest import io

from comfyui_calibri.nodes.extension import CalibriExtension

pytestmark = pytest.mark.oldest

# Of a page's picture: its words and its file.
PICTURE = re.compile(r"!\[([^\]]+)\]\(img/([^)]+)\)")
PICTURE_BYTES = 1_500_000  # all of them: they travel with every installation


def schemas() -> dict[str, Any]:
    """Node id -> schema."""
    nodes = asyncio.run(CalibriExtension().get_node_list())
    found = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in nodes}
    assert len(found) == len(nodes)
    return found


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    """Node id -> the words of its page."""
    files = (root / "web" / "docs").glob("*.md")
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def test_every_node_is_listed_once_and_has_its_page(pages: dict[str, str]) -> None:
    found = schemas()
    assert all(name.startswith("Calibri") for name in found)
    assert set(found) == set(pages)
    titles = {name: page.splitlines()[0] for name, page in pages.items()}
    assert titles == {name: f"# {schema.display_name}" for name, schema in found.items()}


def test_a_page_explains_each_input_and_output(pages: dict[str, str]) -> None:
    missing = {name: unexplained(schema, pages[name]) for name, schema in schemas().items()}
    assert not {name: words for name, words in missing.items() if words}


def test_a_translated_page_says_what_the_english_one_says_and_shows_its_pictures(
    root: Path, pages: dict[str, str]
) -> None:
    found = schemas()
    for file in (root / "web" / "docs").glob("*/*.md"):
        name, page = file.parent.name, file.read_text(encoding="utf-8")
        locale = root / "locales" / file.stem / "nodeDefs.json"
        titles = json.loads(locale.read_text(encoding="utf-8"))
        assert page.splitlines()[0] == f"# {titles[name]['display_name']}"
        assert not unexplained(found[name], page), file
        shown = [[picture for _, picture in PICTURE.findall(text)] for text in (page, pages[name])]
        assert shown[0] == shown[1], file


def unexplained(schema: Any, page: str) -> list[str]:
    """The node's inputs and outputs that the page does not name."""
    outputs = [output.display_name or output.id for output in schema.outputs or ()]
    wanted = [*(given.id for given in schema.inputs or ()), *filter(None, outputs)]
    explained = marked_words(page)
    # MODEL and CLIP are sockets without a name of their own.
    return [word for word in wanted if first_of_row(word) not in explained and not word.isupper()]


def marked_words(page: str) -> set[str]:
    """The words that a page marks as names: bold, as code, or first in a table's row."""
    marked = re.findall(r"\*\*([^*]+)\*\*|`([^`]+)`|^\| ([^|]+) \|", page, re.MULTILINE)
    return {word for groups in marked for part in groups for word in re.findall(r"\w+", part)}


def first_of_row(word: str) -> str:
    """`other_reward_3` is explained where `other_reward_1` is."""
    return re.sub(r"_\d+$", "_1", word)


def test_a_page_has_a_picture_and_every_picture_a_page(root: Path, pages: dict[str, str]) -> None:
    folder = root / "web" / "docs" / "img"
    shown = {name: PICTURE.findall(page) for name, page in pages.items()}
    assert not [name for name, pictures in shown.items() if not pictures]
    used = {file for pictures in shown.values() for _, file in pictures}
    assert used == {file.name for file in folder.iterdir()}
    assert sum(file.stat().st_size for file in folder.iterdir()) <= PICTURE_BYTES


def test_nodes_are_found_by_other_words_where_comfyui_has_them() -> None:
    if "search_aliases" not in {field.name for field in dataclasses.fields(io.Schema)}:
        pytest.skip("this ComfyUI's schemas have no search aliases")
    without = {name for name, schema in schemas().items() if not schema.search_aliases}
    assert without <= {"CalibriSlice"}
