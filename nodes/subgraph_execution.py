"""ComfyUI's own executor, run on a sub-graph inside a node.

`execution.execute` runs each node, so lists, lazy inputs, async nodes, expansion and hidden inputs
are ComfyUI's business here as anywhere. The cache is private: what does not depend on the
entrances runs once and stays, the rest is dropped after each run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.utils
import comfy_execution.progress
import execution
import torch
from comfy_execution.graph import DynamicPrompt, ExecutionBlocker, ExecutionList

from .subgraph import SubGraph

_PROMPT = "calibri-sub-graph"


class SubGraphError(RuntimeError):
    """A node of the sub-graph failed; the message names it and repeats its own message."""


class SubGraphRunner:
    """Runs one sub-graph again and again."""

    def __init__(self, graph: SubGraph) -> None:
        self._graph = graph
        self._nodes = {number: {**node} for number, node in graph.nodes.items()}
        for number in graph.held:
            self._nodes[number]["is_changed"] = False  # ComfyUI then does not ask its node
        self._caches = execution.CacheSet()

    def run(self, given: Mapping[str, Any]) -> list[Any]:
        """The values of the sub-graph's last socket, a list as ComfyUI passes them on.

        `given`: inputs of all entrances by name. Raises SubGraphError for a node that fails,
        and ComfyUI's own errors where it is cancelled or out of memory.
        """
        for number in self._graph.entrances:
            self._nodes[number]["inputs"] = dict(given)
        try:
            with _off_the_page():
                return _in_own_loop(self._run)
        finally:
            for number in self._graph.entrances:
                self._nodes[number]["inputs"] = {}

    async def _run(self) -> list[Any]:
        try:
            prompt = await self._begin(self._nodes, self._caches.all)
            outputs = self._caches.outputs
            waiting = ExecutionList(prompt, outputs)
            waiting.add_node(self._graph.score[0])
            executed: set[str] = set()
            state: list[dict[str, Any]] = [{}, {}, {}]
            # v0.3.64 keeps what output nodes show in a cache of its own.
            with_shown = "ui_outputs" in inspect.signature(execution.execute).parameters
            state = state if with_shown else state[:2]
            while not waiting.is_empty():
                number, error, exception = await waiting.stage_node_execution()
                result = None
                if error is None:
                    result, error, exception = await execution.execute(
                        _NoPage(), prompt, self._caches, number, {}, executed, _PROMPT, waiting,
                        *state,
                    )  # fmt: skip
                if error is not None:
                    self._fail(error, exception)
                if result == execution.ExecutionResult.PENDING:
                    waiting.unstage_node_execution()
                else:
                    waiting.complete_node_execution()
            number, socket = self._graph.score
            kept = (
                outputs.get_local(number) if hasattr(outputs, "get_local") else outputs.get(number)
            )
            values = list(getattr(kept, "outputs", kept)[socket])
        finally:
            held = {number: self._nodes[number] for number in self._graph.held}
            # Nodes themselves stay: many keep their model in `self`.
            await self._begin(held, [c for c in self._caches.all if c is not self._caches.objects])
        if any(isinstance(value, ExecutionBlocker) for value in values):
            raise SubGraphError("a node of it blocked the execution and there is no score")
        return values

    async def _begin(self, nodes: dict[str, Any], caches: list[Any]) -> DynamicPrompt:
        """Make `caches` those of `nodes`: what they hold of others is dropped."""
        prompt = DynamicPrompt(nodes)
        changed = execution.IsChangedCache(_PROMPT, prompt, self._caches.outputs)
        for cache in caches:
            await cache.set_prompt(prompt, nodes.keys(), changed)
            cache.clean_unused()
        return prompt

    def _fail(self, error: Mapping[str, Any], exception: Exception) -> None:
        interrupted = comfy.model_management.InterruptProcessingException
        if isinstance(exception, interrupted) or _out_of_memory(exception):
            raise exception
        number = error["node_id"]
        raise SubGraphError(
            f"its node {self._graph.title(number)} failed: {exception}"
        ) from exception


class _NoPage:
    """What the executor takes for the server: nobody watches."""

    client_id = None
    last_node_id = None

    def send_sync(self, event: str, data: object, client: str | None = None) -> None:
        """Tell nobody."""


@contextmanager
def _off_the_page() -> Iterator[None]:
    """The page shows the progress of the node that asked, not of those inside; Cancel works."""
    progress = comfy_execution.progress
    registry, hook = progress.global_progress_registry, comfy.utils.PROGRESS_BAR_HOOK
    progress.global_progress_registry = progress.ProgressRegistry(_PROMPT, DynamicPrompt({}))
    comfy.utils.set_progress_bar_global_hook(_stop_if_cancelled)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
        progress.global_progress_registry = registry


def _stop_if_cancelled(*_: object, **__: object) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def _in_own_loop(coroutine: Any) -> list[Any]:
    """Run it to its end; the caller's thread runs ComfyUI's loop and cannot run another."""
    outcome: list[Any] = []
    context = contextvars.copy_context()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def work() -> None:
        if device is not None:
            torch.cuda.set_device(device)
        try:
            with torch.inference_mode():
                outcome.append((asyncio.run(coroutine()), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=context.run, args=(work,), name="calibri-sub-graph")
    thread.start()
    thread.join()
    values, error = outcome[0]
    if error is not None:
        raise error
    return list(values)


def _out_of_memory(error: Exception) -> bool:
    is_oom = getattr(comfy.model_management, "is_oom", None)  # absent in v0.3.64
    if is_oom is not None:
        return bool(is_oom(error))
    return isinstance(error, comfy.model_management.OOM_EXCEPTION)
