"""What --plan prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..calibri.forecast import Forecast


def show_plan(forecast: Forecast, as_json: bool) -> None:
    """A run's cost in words, or in JSON."""
    if as_json:
        typer.echo(json.dumps(forecast.record()))
        return
    from ..calibri.pilot import duration

    left = forecast.images - forecast.drawn
    drawn = f", {forecast.drawn:,} of them drawn already" if forecast.drawn else ""
    typer.echo(f"{forecast.images:,} images at most{drawn}; {forecast.calls} calls for each.")
    where = ""
    if forecast.workers > 1:
        where = f" on {forecast.workers} workers at {100 * forecast.efficiency:.0f} % of their time"
    typer.echo(
        f"{left:,} images at {forecast.seconds_per_image:.3g} s{where}: "
        f"{duration(forecast.seconds)}."
    )
    if forecast.price:
        typer.echo(f"At {forecast.price:g} for a worker's hour: {forecast.cost:.2f}.")
    typer.echo("It draws fewer where the search ends early or the plain model is recommended.")
