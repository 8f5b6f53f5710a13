"""What /calibri/presets takes and answers. docs/openapi.json is made from these models.

Nothing of ComfyUI is imported here, and this module only at the first request.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ...calibri.preset_text import MAX_CHARACTERS

Name = Annotated[str, Field(min_length=1, max_length=400)]


class Answer(BaseModel):
    """Something the server tells."""

    model_config = ConfigDict(extra="forbid")


class Request(BaseModel):
    """Something the server is told: exact types, and no fields that it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Error(Answer):
    """Why something was not done, and what to do."""

    error: str


class Change(Answer):
    """A reward's mean on held-out prompts, plain and calibrated."""

    name: str
    before: float
    after: float
    low: float = Field(description="95 % interval of after − before, paired over prompts")
    high: float
    samples: int
    searched: bool = Field(description="whether the search raised it; else it only judged")


class Summary(Answer):
    """A preset but for its coefficients."""

    name: str = Field(description="its file, as Load Calibri Preset lists it")
    digest: str = Field(description="of what it does: equal where two presets draw the same")
    title: str
    family: str
    blocks: dict[str, int] = Field(description="how many blocks of each kind its model has")
    granularity: str
    members: int = Field(description="of the ensemble, mostly 1")
    coefficients: int = Field(description="of each member")
    guidance: float | None = Field(description="the cfg that its two members stand in for")
    base_model: str
    fingerprint: str = Field(description="of the model it was found on; other files may differ")
    licence: str
    created: str = Field(description="ISO 8601, or empty")
    origin: str = Field(description="what it was made from, where it was made from a preset")
    sampling: dict[str, str | int | float | bool | None]
    rewards: list[Change]
    diversity: Change | None
    thumbnail: bool = Field(description="whether the file has a picture")
    bytes: int
    yours: bool = Field(description="whether it can be renamed and deleted; the demo's cannot")
    fits: bool | None = Field(description="whether it fits the model asked for; null: not asked")


class Whole(Summary):
    """A preset with its coefficients."""

    names: list[str] = Field(description="of the coefficients: kind.block.branch.stream")
    values: list[list[float]] = Field(description="for each member, in the order of `names`")
    weights: list[float] = Field(description="for each member")


class Broken(Answer):
    """A file among the presets that cannot be used."""

    name: str
    error: str


class Listing(Answer):
    """All presets, by name."""

    presets: list[Summary]
    broken: list[Broken]
    model_error: str = Field(description="why the model asked for could not be read; else empty")


class Added(Answer):
    """A preset that was sent."""

    preset: Whole
    is_new: bool = Field(description="false where the same file was there already")


class Rename(Request):
    """A new name below models/calibri; .safetensors is added where it is missing."""

    to: Name


class Text(Answer):
    """A preset as text."""

    text: str


class NewText(Request):
    """A preset as text, to become a file. Without a name it is called by its title."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    name: Name | None = None


class Nothing(Request):
    """An empty object: what is wanted, the address says."""


class Discarded(Answer):
    """A preset in the trash."""

    id: str
    name: str = Field(description="what it was called")
    folder: str = Field(description="where the file is now")


class Trash(Answer):
    """What was deleted, newest first."""

    discarded: list[Discarded]
