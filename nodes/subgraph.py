"""A part of a prompt that can be run by itself: what leads from Reward Inputs to one socket.

Prompts are ComfyUI's: node number → {"class_type", "inputs"}, where a link is [number, socket].
`subgraph_execution.py` runs what is cut out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

ENTRANCE = "CalibriRewardInput"

Node = dict[str, Any]
Link = tuple[str, int]


@dataclass(frozen=True)
class SubGraph:
    """`nodes` by number, each an ancestor of `score` or its origin; all links stay inside.

    `entrances` are the Reward Inputs; `held` are the nodes that do not depend on them.
    """

    nodes: Mapping[str, Node]
    score: Link
    entrances: frozenset[str]
    held: frozenset[str]

    def title(self, number: str) -> str:
        """What a person calls a node."""
        node = self.nodes[number]
        title = (node.get("_meta") or {}).get("title") or node["class_type"]
        return f"{title} (node {number})"

    def digest(self) -> str:
        """The same for the same classes, widgets and links, however the nodes are numbered."""
        known: dict[str, str] = {}
        for number in _in_order(self.nodes, self.score[0]):
            node = self.nodes[number]
            inputs = {} if number in self.entrances else node["inputs"]
            told = {
                name: [known[value[0]], value[1]] if is_link(value) else value
                for name, value in inputs.items()
            }
            text = json.dumps([node["class_type"], told], sort_keys=True, default=str)
            known[number] = blake2b(text.encode(), digest_size=8).hexdigest()
        return blake2b(
            f"{known[self.score[0]]}/{self.score[1]}".encode(), digest_size=4
        ).hexdigest()


def is_link(value: object) -> bool:
    """Whether an input's value is a link to another node, as ComfyUI reads it."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def cut_out(node_of: Callable[[str], Node], score: object) -> SubGraph:
    """The sub-graph that ends in the link `score`; `node_of` looks a number up in the prompt.

    Raises ValueError where `score` is no link, or depends on no Reward Input.
    """
    if not isinstance(score, list) or not is_link(score):
        raise ValueError(
            "The score is not connected; connect the number that your nodes give for an image."
        )
    found: dict[str, Node] = {}
    waiting = [score[0]]
    while waiting:
        number = waiting.pop()
        if number not in found:
            node = node_of(number)
            kept = {key: node[key] for key in ("class_type", "_meta") if key in node}
            found[number] = {**kept, "inputs": dict(node["inputs"])}
            waiting += [value[0] for value in node["inputs"].values() if is_link(value)]
    entrances = {number for number, node in found.items() if node["class_type"] == ENTRANCE}
    depends = set(entrances)
    for number in _in_order(found, score[0]):
        links = [value[0] for value in found[number]["inputs"].values() if is_link(value)]
        if depends.intersection(links):
            depends.add(number)
    if score[0] not in depends:
        raise ValueError(
            "The score does not depend on the images; begin with a Reward Input and lead its image "
            "through your nodes to the score."
        )
    return SubGraph(
        found, (score[0], int(score[1])), frozenset(entrances), frozenset(found) - depends
    )


def _in_order(nodes: Mapping[str, Node], last: str) -> list[str]:
    """Each node behind those that it needs; a prompt has no circles, ComfyUI has checked that."""
    order: dict[str, None] = {}
    waiting = [last]
    while waiting:
        number = waiting[-1]
        links = [value[0] for value in nodes[number]["inputs"].values() if is_link(value)]
        missing = [link for link in links if link not in order]
        if missing:
            waiting += missing
        else:
            order[waiting.pop()] = None
    return list(order)
