"""A run's inputs after a restart of ComfyUI: the part of the user's graph that made them, stored
with the run and executed again.

What may be a key, a token or a password is never stored.
"""

from __future__ import annotations

import re
from typing import Any

from .record import Record

# In an input's name: "openai_api_key", "hfToken", "APIKey", but not "keyframes" or "tokenizer".
_SECRET_NAME = re.compile(
    r"api_?-?keys?|(^|[^a-z])(keys?\d*|auth)($|[^a-z])|token(?!i[sz])|secret|passw|pwd|passphrase"
    r"|bearer|credential|authori[sz]|cookie|jwt"
)
_CASE_CHANGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# In a value, whatever its input is called.
_SECRET_VALUE = re.compile(r"^(Bearer |sk-|hf_|ghp_|eyJ)\S{12}|://[^/\s:@]+:[^/\s@]+@")


def upstream(prompt: dict[str, Any], node: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The part of `prompt` that node `node` is made from, and the inputs that were left out of it
    because they may be secret, as node.input.

    None where the node is not in the prompt itself, but in what another node has expanded to.
    """
    graph: dict[str, Any] = {}
    withheld: list[str] = []
    wanted = [node]
    while wanted:
        number = wanted.pop()
        if number in graph:
            continue
        if number not in prompt:
            return None, []
        entry = prompt[number]
        inputs = {}
        for name, value in entry["inputs"].items():
            if is_link(value):
                wanted.append(value[0])
            elif _may_be_secret(name, value):
                withheld.append(f"{entry['class_type']}.{name}")
                continue
            inputs[name] = value
        graph[number] = {"class_type": entry["class_type"], "inputs": inputs}
    return graph, sorted(withheld)


def rebuilding(record: Record, token: str) -> tuple[dict[str, Any], str]:
    """The prompt that makes a run's inputs anew, and its node; ids are those of no other graph.

    Raises ValueError where that prompt is not whole.
    """
    if record.prompt is None:
        raise ValueError(
            "Its inputs cannot be made again without its workflow: queue the workflow to go on."
        )
    if record.withheld:
        raise ValueError(
            f"Its workflow has inputs that are never stored ({', '.join(record.withheld)}): queue "
            "the workflow again to go on."
        )
    prefix = f"calibri-rebuild-{token}-"
    graph = {
        prefix + number: {
            "class_type": node["class_type"],
            "inputs": {
                name: [prefix + value[0], value[1]] if is_link(value) else value
                for name, value in node["inputs"].items()
            },
        }
        for number, node in record.prompt.items()
    }
    return graph, prefix + record.node


def is_link(value: Any) -> bool:
    """Whether an input's value is another node's output, as ComfyUI decides it."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


def _may_be_secret(name: str, value: Any) -> bool:
    if isinstance(value, dict):
        return any(_may_be_secret(key, item) for key, item in value.items())
    if isinstance(value, list):
        return any(_may_be_secret(name, item) for item in value)
    if not isinstance(value, str):
        return False
    separated = _CASE_CHANGE.sub("_", name).lower()
    named = _SECRET_NAME.search(separated) or _SECRET_NAME.search(name.lower())
    return bool(named or _SECRET_VALUE.search(value))
