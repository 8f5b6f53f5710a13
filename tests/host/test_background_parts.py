"""What a run stores of its workflow: enough to make its inputs again, and no secret."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui_calibri.nodes.background.rebuild import rebuilding, upstream
from comfyui_calibri.nodes.background.record import Record

pytestmark = pytest.mark.oldest


def graph(**inputs: Any) -> dict[str, Any]:
    """A run's node 3 above a reward 2 and a loader 1, and a node 4 below it."""
    return {
        "1": {"class_type": "Loader", "inputs": {"file": "a.safetensors"}, "is_changed": ["x"]},
        "2": {"class_type": "Reward", "inputs": {"model": ["1", 0], **inputs}},
        "3": {"class_type": "Run", "inputs": {"reward": ["2", 0], "steps": 4}},
        "4": {"class_type": "Save", "inputs": {"preset": ["3", 0]}},
    }


def test_what_is_above_a_run_is_stored_and_makes_its_inputs_under_other_ids() -> None:
    stored, withheld = upstream(graph(), "3")
    assert stored is not None
    assert stored.keys() == {"1", "2", "3"}
    assert withheld == []
    assert "is_changed" not in stored["1"]
    again, target = rebuilding(Record("run", "run", prompt=stored, node="3"), "abc")
    assert not again.keys() & graph().keys()
    (link, _) = again[target]["inputs"]["reward"]
    assert again[link] == {
        "class_type": "Reward",
        "inputs": {"model": [link.replace("-2", "-1"), 0]},
    }


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apiKey", "APIKey", "apiKeys", "key", "token", "tokens", "HFToken", "hftoken"),
        *("secret", "clientsecret", "password", "auth", "authorization", "bearer", "cookie", "jwt"),
        *("pwd", "civitaiAPIKey"),
    ],
)
def test_what_may_be_secret_is_not_stored_and_the_run_says_so(name: str) -> None:
    stored, withheld = upstream(graph(**{name: "abcd"}), "3")
    assert "abcd" not in str(stored)
    assert withheld == [f"Reward.{name}"]
    record = Record("run", "run", prompt=stored, node="3", withheld=withheld)
    with pytest.raises(ValueError, match=f"Reward.{name}.*queue the workflow again"):
        rebuilding(record, "abc")


@pytest.mark.parametrize(
    "value", ["https://me:word@host/x", "hf_abcdefghijklmnop", ["sk-" + "a" * 20]]
)
def test_values_that_look_like_a_secret_are_not_stored_either(value: Any) -> None:
    assert upstream(graph(address=value), "3")[1] == ["Reward.address"]


@pytest.mark.parametrize("name", ["keyframes", "tokenizer", "author", "monkey", "max_tokens"])
def test_other_inputs_are_stored(name: str) -> None:
    value = 77 if name == "max_tokens" else "plain"
    stored, withheld = upstream(graph(**{name: value}), "3")
    assert stored is not None
    assert stored["2"]["inputs"][name] == value
    assert withheld == []
