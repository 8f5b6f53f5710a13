"""What /calibri/runs answers. docs/openapi.json is made from these models; a host test holds the
answers against it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Something the server tells."""

    model_config = ConfigDict(extra="forbid")


class Interval(Answer):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class Run(Answer):
    """A calibration. Rewards are means on held-out prompts."""

    id: str
    revision: int = Field(description="of two summaries, the one with the larger is newer")
    title: str
    created: float = Field(description="seconds since 1970")
    where: Literal["background", "prompt", "elsewhere", "nowhere"] = Field(
        description="whether it is this ComfyUI's in the background, or else what works on it: a "
        "prompt of this ComfyUI, another process, nobody"
    )
    state: Literal["running", "waiting", "paused", "interrupted", "rests", "stopped", "finished"]
    reason: str = Field(description="why it rests or what is odd about it, in words; else empty")
    generation: int
    generations: int
    images: int
    total: int = Field(description="images that the search may need at most")
    phase: str
    reward: float | None = Field(description="of the best so far")
    plain: float | None = Field(description="of the plain model")
    best: int | None = Field(description="the generation of the best so far")
    gain: Interval | None
    seconds: float = Field(description="of work")
    seconds_left: float | None
    slices: int
    longest_wait: float = Field(description="seconds that a prompt of the user's had to wait")
    idle_seconds: float
    preset: str | None = Field(description="its preset's file in models/calibri")


class Generation(Answer):
    """One generation; null is what is not known or was not measured."""

    generation: int
    mean: float | None = Field(description="of its candidates' rewards, as best and worst")
    best: float | None
    worst: float | None
    sigma: float | None
    step: float | None = Field(description="how far a coefficient is from their mean, rms")
    images: int | None
    seconds: float | None
    validation: float | None = Field(description="reward of the candidates' mean, held out")
    gain: Interval | None = Field(description="of the validation over the plain model's, paired")
    vector: list[float] | None = Field(description="the candidates' mean, in `coordinates`' order")


class WatchedRun(Run):
    """A run with its course."""

    coordinates: list[str] = Field(default=[], description="names; left out where since > 0")
    course: list[Generation] = Field(description="from the generation `since` on")
    picture: str | None = Field(description="another one for each other picture; null: none")


class Runs(Answer):
    """All runs."""

    revision: int
    runs: list[Run]


class Deleted(Answer):
    """A run that went to the trash of the runs folder."""

    deleted: str
    revision: int


class Done(Answer):
    """Nothing more to say."""


class Command(BaseModel):
    """What a command is told: `follow` and `unfollow` need the page's id."""

    client_id: str | None = None
