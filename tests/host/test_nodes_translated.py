"""The nodes' words in other languages than English are whole and belong to the nodes there are."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from comfyui_calibri.nodes.extension import CalibriExtension

pytestmark = pytest.mark.oldest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
# English is what the schemas say.
LANGUAGES = sorted(folder.name for folder in LOCALES.iterdir() if folder.name != "en")
# What vue-i18n, by which the page reads these words, takes for its own.
SPECIAL = re.compile(r"[{}@|$]")

Words = dict[str, Any]


def english() -> dict[str, Words]:
    """What a translation of every node must hold, from the schemas."""
    found = {}
    for node in asyncio.run(CalibriExtension().get_node_list()):
        schema = node.GET_SCHEMA()
        entry: Words = {"display_name": schema.display_name, "description": schema.description}
        if schema.inputs:
            entry["inputs"] = {
                given.id: {"name": given.display_name or given.id, "tooltip": given.tooltip}
                for given in schema.inputs
            }
        if schema.outputs:
            entry["outputs"] = {
                str(place): {"name": output.display_name or output.id}
                | ({"tooltip": output.tooltip} if output.tooltip else {})
                for place, output in enumerate(schema.outputs)
            }
        found[schema.node_id] = entry
    return found


def paths(words: Any, place: str = "") -> dict[str, str]:
    """Every string of a tree with its place: CalibriApply/inputs/strength/tooltip."""
    if isinstance(words, str):
        return {place: words}
    return {
        below: text
        for key, inner in words.items()
        for below, text in paths(inner, f"{place}/{key}".lstrip("/")).items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_every_node_is_translated_and_no_other(language: str) -> None:
    translated = paths(json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8")))
    wanted = paths(english())
    assert sorted(set(wanted) - set(translated)) == [], "missing"
    assert sorted(set(translated) - set(wanted)) == [], "of no node, input or output any more"
    assert not [place for place, text in translated.items() if not text.strip()]
    assert not [place for place, text in translated.items() if SPECIAL.search(text)]


def test_chinese_is_chinese() -> None:
    translated = paths(json.loads((LOCALES / "zh" / "nodeDefs.json").read_text("utf-8")))
    sentences = {
        p: text for p, text in translated.items() if p.endswith(("tooltip", "description"))
    }
    assert not [
        place for place, text in sentences.items() if not re.search(r"[\u4e00-\u9fff]", text)
    ]


def test_parts_of_the_menu_have_chinese_names() -> None:
    words = json.loads((LOCALES / "zh" / "main.json").read_text("utf-8"))["nodeCategories"]
    nodes = asyncio.run(CalibriExtension().get_node_list())
    parts = {part for node in nodes for part in node.GET_SCHEMA().category.split("/")}
    assert set(words) == parts - {"Calibri", "QRM"}  # names
