"""Reward from Workflow: the user's own nodes score images, run by ComfyUI's own executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management
import comfy.utils
import comfy_execution.progress
import nodes
import pytest
import torch
from comfy_execution.graph import DynamicPrompt

from comfyui_calibri.nodes.extension import CalibriExtension
from comfyui_calibri.nodes.subgraph import cut_out
from comfyui_calibri.nodes.workflow_reward import CalibriWorkflowReward, WorkflowReward
from comfyui_calibri.rewards.protocol import Reward

from .scorer_nodes import CALLS, V1, V3Mean

pytestmark = pytest.mark.oldest

Prompt = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These nodes and the pack's own, as ComfyUI knows them; ComfyUI's inference mode."""
    CALLS.clear()
    for kind in V1.__subclasses__():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, f"CalibriTest{kind.__name__}", kind)
    for own in [*asyncio.run(CalibriExtension().get_node_list()), V3Mean]:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, own.GET_SCHEMA().node_id, own)
    with torch.inference_mode():
        yield


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def between(*kinds: str) -> Prompt:
    """A Reward Input, then nodes one behind the other; the last is number `len(kinds)`."""
    prompt = {"0": node("CalibriRewardInput", prompt="")}
    for place, kind in enumerate(kinds, 1):
        prompt[str(place)] = node(f"CalibriTest{kind}", image=[str(place - 1), 0])
    return prompt


def reward_of(prompt: Prompt, score: str, name: str = "mine") -> WorkflowReward:
    """What Reward from Workflow makes in a prompt, as ComfyUI's executor calls it."""
    from execution import _async_map_node_over_list, get_input_data

    link = {"score": [score, 0], "name": name}
    prompt = {**prompt, "reward": node("CalibriWorkflowReward", **link)}
    dynamic = DynamicPrompt(prompt)
    given, missing, hidden = get_input_data(link, CalibriWorkflowReward, "reward", None, dynamic)
    assert not missing
    (made,) = asyncio.run(
        _async_map_node_over_list("p", "reward", CalibriWorkflowReward, given, "EXECUTE_NORMALIZED",
                                  **{_HIDDEN: hidden})
    )  # fmt: skip
    reward: WorkflowReward = made.args[0]
    return reward


def _hidden_argument() -> str:
    import inspect

    from execution import _async_map_node_over_list

    known = inspect.signature(_async_map_node_over_list).parameters
    return "v3_data" if "v3_data" in known else "hidden_inputs"


_HIDDEN = _hidden_argument()
GREYS = (0.1, 0.3, 0.5)


def greys(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)


def scores(reward: WorkflowReward, values: tuple[float, ...] = GREYS) -> list[float]:
    answer = reward.score(greys(*values), ["a"] * len(values))
    assert answer.shape == (len(values),)
    return [round(float(score), 4) for score in answer]


@pytest.mark.parametrize(
    "kind",
    ["Mean", "Text", "OneInAList", "ListOfOne", "AllAtOnce", "Waits", "Expands", "V3Mean"],
)
def test_each_kind_of_node_gives_one_score_for_each_image(kind: str) -> None:
    reward = reward_of(between(kind), "1")
    assert isinstance(reward, Reward)
    assert not reward.differentiable
    for _ in range(2):
        assert scores(reward) == list(GREYS)
    assert scores(reward, (0.7,)) == [0.7]


def test_nothing_runs_before_images_come_and_loaders_run_once() -> None:
    prompt = between()
    prompt["1"] = node("CalibriTestLoader", factor=10.0)
    prompt["2"] = node("CalibriTestScorer", image=["0", 0], model=["1", 0], prompt=["0", 1])
    reward = reward_of(prompt, "2")
    assert CALLS == []
    for _ in range(3):
        answer = reward.score(greys(0.1, 0.2), ["a", "four"])
        torch.testing.assert_close(answer, torch.tensor([2.0, 6.0]))
    assert CALLS == ["Scorer made", "Loader"] or CALLS == ["Loader", "Scorer made"]


def test_nodes_that_take_lists_whole_run_for_each_image() -> None:
    reward = reward_of(between("AllAtOnce"), "1")
    scores(reward)
    scores(reward)
    assert ["AllAtOnce 3", *["AllAtOnce 1"] * 6] == CALLS


def test_lazy_inputs_stay_lazy() -> None:
    prompt = between("Mean", "Fails")
    prompt["2"]["inputs"]["image"] = ["0", 0]
    prompt["3"] = node("CalibriTestLazy", image=["1", 0], other=["2", 0])
    assert scores(reward_of(prompt, "3")) == list(GREYS)


def test_a_reward_can_be_made_of_rewards() -> None:
    inner = between("Mean")
    inner["2"] = node("CalibriWorkflowReward", score=["1", 0], name="inner")
    inner["3"] = node("CalibriScoreImages", images=["0", 0], reward=["2", 0], prompt=["0", 1])
    assert scores(reward_of(inner, "3")) == list(GREYS)


def test_the_name_tells_the_nodes_and_not_their_numbers() -> None:
    first = reward_of(between("Mean"), "1").name
    assert first.startswith("mine (workflow ")
    renumbered = {
        "7:1": node("CalibriRewardInput", prompt="tried with another"),
        "x": node("CalibriTestMean", image=["7:1", 0]),
    }
    assert reward_of(renumbered, "x").name == first
    assert reward_of(between("Text"), "1").name != first


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("Fails", r"mine \(workflow \w+\): its node CalibriTestFails \(node 1\) failed: the scor"),
        ("Pair", r"its node CalibriTestPair \(node 1\) gave '0\.1, 0\.9' for an image"),
        ("Infinite", r"mine .* gave 3 of 3 images a score that is NaN or infinite"),
        ("Blocks", r"blocked the execution and there is no score"),
    ],
)
def test_what_is_no_score_is_refused_by_name(kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        scores(reward_of(between(kind), "1"))


def test_a_title_is_what_the_message_calls_a_node() -> None:
    prompt = between("Fails")
    prompt["1"]["_meta"] = {"title": "My scorer"}
    with pytest.raises(ValueError, match=r"its node My scorer \(node 1\) failed"):
        scores(reward_of(prompt, "1"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("Cancelled", comfy.model_management.InterruptProcessingException),
        ("MemoryIsFull", comfy.model_management.OOM_EXCEPTION),
    ],
)
def test_cancel_and_full_memory_reach_the_calibration(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        scores(reward_of(between(kind), "1"))


def test_a_score_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="does not depend on the images"):
        reward_of({"1": node("CalibriTestLoader", factor=1.0)}, "1")
    with pytest.raises(ValueError, match="score is not connected"):
        cut_out({}.__getitem__, 0.5)


def test_the_page_sees_the_progress_of_the_node_that_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    hook: Callable[..., None] = lambda *values, **_: shown.append(values)  # noqa: E731
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    registry = comfy_execution.progress.get_progress_state()
    prompt = between()
    prompt["1"] = node("CalibriTestLoader", factor=10.0)
    prompt["2"] = node("CalibriTestScorer", image=["0", 0], model=["1", 0], prompt="")
    scores(reward_of(prompt, "2"))
    assert shown == []
    assert comfy_execution.progress.get_progress_state() is registry
    assert registry.nodes == {}
    assert comfy.utils.PROGRESS_BAR_HOOK is hook


def test_it_works_inside_comfyuis_running_loop() -> None:
    reward = reward_of(between("Waits"), "1")

    async def inside() -> list[float]:
        return scores(reward)

    assert asyncio.run(inside()) == list(GREYS)
