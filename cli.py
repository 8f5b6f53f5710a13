"""The command line: `python -m comfyui_calibri`, or `comfyui-calibri`.

Each command has a module in `commands/`. Heavy imports belong inside the commands: `--help` is
there at once.
"""

from __future__ import annotations

import typer

from .commands.calibrate import calibrate, resume
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.evaluate import evaluate
from .commands.export_preset import export_preset
from .commands.import_checkpoint import import_checkpoint
from .commands.inspect_router import inspect_router
from .commands.run_report import report
from .commands.status import status, stop
from .commands.train import train
from .commands.train_qrm import train_qrm
from .commands.verify import verify

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(calibrate)
app.command()(resume)
app.command()(status)
app.command()(stop)
app.command()(report)
app.command("import")(import_checkpoint)
app.command("export")(export_preset)
app.command()(evaluate)
app.command()(demo)
app.command()(verify)
app.command("train-qrm")(train_qrm)
app.command()(train)
app.command("inspect-router")(inspect_router)
app.command()(doctor)


@app.callback()
def calibri() -> None:
    """Calibri: a few coefficients that calibrate a Diffusion Transformer."""
