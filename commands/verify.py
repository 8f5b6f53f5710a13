"""`verify`: our scaling against a recorded output of Calibri's official code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..calibri.verification import Comparison, Verification

DIFFERS = 1
BAD_INPUT = 2


def verify(
    vector: Annotated[
        Path,
        typer.Argument(metavar="VECTOR.json", help="A recorded call; its tensors lie beside it."),
    ],
) -> None:
    """Reproduce an output of the official code with our scaling, on diffusers' model.

    Exits with 0 when the largest absolute difference is at most 1e-5 of the largest output, with 1
    when it is larger, and with 2 when the vector cannot be used.
    """
    from ..calibri.official_vector import OfficialVectorError, read_official_vector
    from ..calibri.verification import verify as run

    try:
        found = run(read_official_vector(vector))
    except OfficialVectorError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BAD_INPUT) from error
    except ImportError as error:
        typer.echo(
            f"diffusers cannot be imported ({error}): pip install 'comfyui-calibri[diffusers]'.",
            err=True,
        )
        raise typer.Exit(BAD_INPUT) from error
    typer.echo(_describe(vector, found))
    if not found.agrees:
        raise typer.Exit(DIFFERS)


def _describe(vector: Path, found: Verification) -> str:
    layout = found.layout
    lines = [
        f"{vector.name}: {layout.family}, {layout.granularity}, members: {layout.members}",
        f"largest absolute difference: {_compared(found.output)}",
    ]
    if found.plain is not None:
        lines.append(f"identity against the recorded plain model: {_compared(found.plain)}")
    if not found.identity.agrees:
        lines.append(f"identity against the model without taps: {_compared(found.identity)}")
    lines.append("agrees" if found.agrees else "DIFFERS")
    return "\n".join(lines)


def _compared(comparison: Comparison) -> str:
    return f"{comparison.difference:.3g} (allowed: {comparison.bound:.3g})"
