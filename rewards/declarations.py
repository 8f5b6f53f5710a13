"""What a declaration in the server-side file means: a worker's or a server's, checked.

A workflow names a declaration and nothing in it.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from .declared_file import Declared, Place
from .environment import CURRENT, Environment
from .protocol import UNBOUNDED, Card

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class _Declaration(BaseModel):
    """What both kinds say: the card, and how images come.

    `memory_gb` is of the weights, where the scorer runs. `batch`: images at once. `timeout`:
    seconds for them. `version`: part of the reward's name; raise it when its answers change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    licence: str
    meaning: str = "score of an own scorer"
    typical: tuple[float, float] = (0.0, 1.0)
    bounds: tuple[float, float] = UNBOUNDED
    memory_gb: float = Field(default=0.0, ge=0)
    size: PositiveInt | None = None
    needs_prompt: bool = True
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout: PositiveFloat = 300.0
    version: str = ""

    @property
    def card(self) -> Card:
        """As every reward has one."""
        memory = int(self.memory_gb * 1e9)
        return Card(self.meaning, self.typical, self.licence, memory, self.size, self.bounds)


class WorkerDeclaration(_Declaration):
    """A scorer in a process of its own.

    `entry`: `module:Class`, or `file.py:Class` below the folder of the file. `python`: the
    environment's version, or "current" for ComfyUI's own Python without an environment.
    `options` go to the class as text, `environment` into its environment variables.
    """

    kind: Literal["worker"]
    entry: str
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages: tuple[str, ...] = ()
    install_options: tuple[str, ...] = ()
    downloads: bool = False
    options: dict[str, str] = {}
    environment: dict[Annotated[str, Field(pattern=VARIABLE)], str] = {}
    start_timeout: PositiveFloat = 600.0

    @field_validator("entry")
    @classmethod
    def _entry(cls, entry: str) -> str:
        source, _, name = entry.rpartition(":")
        is_module = all(part.isidentifier() for part in source.split("."))
        parts = re.split(r"[\\/]", source)
        is_file = source.endswith(".py") and ".." not in parts and bool(parts[0])
        if not name.isidentifier() or ":" in source or not (is_file or is_module):
            raise ValueError(
                "is 'module:Class', or 'file.py:Class' with the file beside this one or below"
            )
        return entry

    @field_validator("packages")
    @classmethod
    def _packages(cls, packages: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if packages and info.data.get("python") == CURRENT:
            raise ValueError("cannot be had with 'python: current', which installs nothing")
        if any(package.startswith("-") for package in packages):
            raise ValueError("are requirements; options of the installer are install_options")
        return packages

    @property
    def made_of(self) -> Environment:
        """The worker's Python environment."""
        return Environment(self.python, self.packages, self.install_options, self.downloads)

    @property
    def script(self) -> str | None:
        """The entry's file, relative to the declaration's folder; None for a module."""
        source = self.entry.rpartition(":")[0]
        return source if source.endswith(".py") else None

    @property
    def variables(self) -> dict[str, str]:
        """Of the worker's environment; without downloads, hubs are not asked either."""
        return {**({} if self.downloads else OFFLINE), **self.environment}


class ServerDeclaration(_Declaration):
    """A scorer behind an address.

    `format`: how images travel, "png" (smaller) or "raw" (faster). `retries`: after a failure that
    may pass. `token_variable`: the environment variable of ComfyUI's that holds the token.
    """

    kind: Literal["http"]
    url: str
    format: Literal["png", "raw"] = "png"
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    token_variable: Annotated[str, Field(pattern=VARIABLE)] | None = None

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError("is an address such as http://gpu-box:9000/score")
        if parts.username or parts.password:
            raise ValueError("holds a password; put a token into a variable, see token_variable")
        return url

    @property
    def token(self) -> str | None:
        """From the environment; None where none is declared, "" where it is not set."""
        if self.token_variable is None:
            return None
        return os.environ.get(self.token_variable, "").strip()  # files of secrets end in a newline


KINDS: dict[str, type[WorkerDeclaration] | type[ServerDeclaration]] = {
    "worker": WorkerDeclaration,
    "http": ServerDeclaration,
}


def parse(declared: Declared) -> WorkerDeclaration | ServerDeclaration:
    """Check one declaration; DeclarationError names the file, the line and the setting."""
    kind = declared.content.get("kind")
    if kind not in KINDS:
        known = " or ".join(KINDS)
        raise declared.mistake(("kind",), f"needs 'kind: {known}', not {kind!r}")
    try:
        return KINDS[kind].model_validate(declared.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        words = first["msg"].removeprefix("Value error, ")
        place: Place = tuple(first["loc"])
        if first["type"] == "extra_forbidden":
            words = f"there is no such setting; a {kind} has {', '.join(KINDS[kind].model_fields)}"
        elif first["type"] == "missing" and len(place) == 1:
            place, words = (), f"{first['loc'][0]!r} is missing"
        raise declared.mistake(place, words) from None
