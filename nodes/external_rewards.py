"""Load External Reward: scorers that the person who runs the server has declared by name.

Packages, programs and addresses are in `calibri/rewards.yaml` of ComfyUI's user folder only; a
workflow says a name from there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from . import sockets
from .messages import show_on_node

if TYPE_CHECKING:
    from ..rewards.declarations import ServerDeclaration, WorkerDeclaration
    from ..rewards.external_reward import ExternalReward

FILE = "rewards.yaml"
NONE = "(none declared)"
_KEY = token_bytes(16)  # nobody can try passwords against what a saved picture holds


class CalibriLoadExternalReward(io.ComfyNode):
    """A reward in a process of its own, or on another machine."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadExternalReward",
            display_name="Load External Reward",
            category="Calibri/rewards",
            **sockets.search_aliases("HPSv3", "Q-Align", "scorer", "worker", "reward server"),
            description="A scorer outside ComfyUI's Python: in a process with packages of its own, "
            "or on another machine. It is declared by name in calibri/rewards.yaml of ComfyUI's "
            "user folder, on the server; a workflow can only name it. See the node's help.",
            inputs=[
                io.Combo.Input(
                    "reward",
                    options=_names() or [NONE],
                    tooltip="A name from calibri/rewards.yaml in ComfyUI's user folder; press R "
                    "after a change of that file.",
                )
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, reward: str | None) -> bool | str:
        if reward is None:  # linked; read when it is known
            return True
        try:
            declaration_of(reward)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, reward: str | None) -> str:
        # Another declaration or script under the same name is another reward.
        # ComfyUI writes this answer into saved pictures, and declarations have secrets.
        if reward is None:  # linked
            return ""
        declaration = declaration_of(reward)
        told = f"{_shown_name(reward, declaration)} {declaration!r}"
        return blake2b(told.encode(), digest_size=16, key=_KEY).hexdigest()

    @classmethod
    def execute(cls, reward: str) -> io.NodeOutput:
        declaration = declaration_of(reward)
        made = _made(reward, declaration, partial(show_on_node, cls.hidden))
        card = made.card
        # An address may hold a key, and its host is enough.
        host = urlsplit(getattr(declaration, "url", "")).netloc
        where = host or f"a worker process: {declaration.entry}"
        show_on_node(
            cls.hidden,
            f"{made.name}: {card.meaning}. Higher is better, {card.range}. "
            f"Licence: {card.licence}. Scores come from {where}.",
        )
        return io.NodeOutput(made)


def rewards_file() -> Path:
    """The server-side file; scripts, environments and logs are beside it."""
    return Path(folder_paths.get_user_directory()) / "calibri" / FILE


def declaration_of(name: str) -> WorkerDeclaration | ServerDeclaration:
    """What is declared under `name`; ValueError names the file, and the line of a mistake."""
    from ..rewards.declarations import parse
    from ..rewards.declared_file import read_declared

    declared = read_declared(rewards_file())
    if name not in declared:
        there = f"it has {', '.join(declared)}" if declared else "nothing is declared yet"
        raise ValueError(
            f"There is no reward {name!r} in {rewards_file()} ({there}); declare it there, on the "
            "machine that runs ComfyUI, as the node's help shows, and press R."
        )
    declaration = parse(declared[name])
    _shown_name(name, declaration)  # a missing script is said before anything runs
    return declaration


def _names() -> list[str]:
    """The declared names; none where the file has a mistake, which a queued prompt will say."""
    if not rewards_file().is_file():
        return []
    from ..rewards.declared_file import DeclarationError, read_declared

    try:
        return list(read_declared(rewards_file()))
    except DeclarationError:
        return []


def _shown_name(name: str, declaration: WorkerDeclaration | ServerDeclaration) -> str:
    from ..rewards.external_reward import shown_name

    return shown_name(name, declaration, rewards_file().parent)


# One worker for all nodes that name the same declaration; it ends when none of them is left.
_alive: weakref.WeakValueDictionary[tuple[str, str], ExternalReward] = weakref.WeakValueDictionary()


def _made(
    name: str, declaration: WorkerDeclaration | ServerDeclaration, say: Callable[[str], None]
) -> ExternalReward:
    from ..rewards.external_reward import external_reward

    key = (_shown_name(name, declaration), repr(declaration))
    made = _alive.get(key)
    if made is None:
        room = partial(_make_room, declaration.card.memory)
        made = external_reward(name, declaration, rewards_file().parent, _Bar(say), room)
        _alive[key] = made
    return made


def _make_room(memory: int) -> None:
    """Have ComfyUI move models out of the way; it does not see what another process needs."""
    device = comfy.model_management.get_torch_device()
    if memory and device.type != "cpu":
        comfy.model_management.free_memory(memory, device)
        comfy.model_management.soft_empty_cache()


class _Bar:
    """What one waits for, in words under the node and on ComfyUI's bar.

    Cancel ends the wait, and so does a background run that has to make room.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: Any = None

    def __call__(self, words: str, done: int, total: int) -> None:
        from .background.pace import make_room

        comfy.model_management.throw_exception_if_processing_interrupted()
        make_room()
        if (words, done) == self._last:
            return
        self._last = (words, done)
        self._say(words)
        if total:
            comfy.utils.ProgressBar(total).update_absolute(done, total)
