"""The options that say where images are drawn, the same for every command that draws a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer

from .engines import ENGINES, LOCAL, RAY, Cluster, Engine

_CPU = Annotated[
    bool,
    typer.Option("--cpu", help="Leave the accelerator alone.", rich_help_panel="ComfyUI"),
]
_ENGINE = Annotated[str, typer.Option(help="local, or ray: on many GPUs.", rich_help_panel="Run")]
_IMAGES = Annotated[
    Optional[int],  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
    typer.Option(
        min=1, help="At most (default: what memory allows, to 64).", rich_help_panel="Run"
    ),
]


def _for_ray(kind: Any, least: float | None, words: str) -> Any:
    option = typer.Option(min=least, help=f"For ray: {words}", rich_help_panel="Ray")
    return Annotated[Optional[kind], option]  # noqa: UP045


# `Cluster` has what is not given.
_RAY: dict[str, Any] = {
    "address": _for_ray(str, None, "a cluster's (default: RAY_ADDRESS, or this machine)."),
    "workers": _for_ray(int, 1, "how many (default: one for each GPU there is)."),
    "gpus_per_worker": _for_ray(float, 0.0, "(default: 1 where there are any)."),
    "cpus_per_worker": _for_ray(float, 0.0, "(default: 1)."),
    "reward_workers": _for_ray(
        int, 0, "rewards on so many workers of their own (default: 0, beside the sampler)."
    ),
    "worker_timeout": _for_ray(
        float, 1.0, "seconds for a batch, after which a worker counts as hung (default: 900)."
    ),
    "mixed_workers": Annotated[
        bool,
        typer.Option(
            "--mixed-workers",
            help="For ray: take workers with other versions or devices too; what they draw then "
            "differs in the last bits.",
            rich_help_panel="Ray",
        ),
    ],
}


def with_engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with these options, which it takes as keywords; `engine_of` makes an engine of
    them."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        _option("cpu", _CPU, False),
        _option("engine", _ENGINE, LOCAL),
        _option("images_at_once", _IMAGES, None),
        *(_option(n, kind, False if n == "mixed_workers" else None) for n, kind in _RAY.items()),
    ]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def engine_of(given: dict[str, Any]) -> Engine:
    """The engine that the options of `given` ask for, which are taken out of it.

    Raises ValueError for an engine that does not exist, and for options that it does not have.
    """
    name, cpu, images = (given.pop(key) for key in ("engine", "cpu", "images_at_once"))
    asked = {key: value for key in _RAY if (value := given.pop(key)) not in (None, False)}
    if name not in ENGINES:
        raise ValueError(f"There is no engine {name!r}: choose {' or '.join(ENGINES)}.")
    if asked and name != RAY:
        option = f"--{next(iter(asked)).replace('_', '-')}"
        raise ValueError(f"{option} is for --engine ray: add that, or leave it out.")
    return ENGINES[name](True if cpu else None, images, Cluster(**asked))


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
