"""`train`: a SiT-shaped or demo-shaped model from nothing, or fine-tuned as a whole, with AHPA."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .exit_codes import BAD_INPUT, FAILED, sentences, terminable
from .run_options import Json

if TYPE_CHECKING:
    import torch

    from ..ahpa.recipe import Recipe
    from ..training.processes import Processes
    from .train_setup import Wanted

File = Optional[Path]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
Text = Optional[str]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Count = Optional[int]  # noqa: UP045
_DATA, _MODEL, _RUN, _ALIGN, _KEEP = "Data", "Model", "Training", "Alignment", "Output"


def train(
    data: Annotated[
        File,
        typer.Option(
            help="Pictures with captions (.txt), or a subfolder for each class.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    told: Annotated[
        str, typer.Option(help="captions, classes or either.", rich_help_panel=_DATA)
    ] = "either",
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="The pack's own VAE and text encoder, and its scenes where no --data is given.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    pictures: Annotated[
        int, typer.Option(min=2, help="Scenes of --demo.", rich_help_panel=_DATA)
    ] = 512,
    vae: Annotated[
        File,
        typer.Option(
            help="Of SD, SDXL, SD3 or FLUX: a file, or a diffusers folder.", rich_help_panel=_DATA
        ),
    ] = None,
    text_encoder: Annotated[
        File, typer.Option(help="A CLIP's folder (transformers).", rich_help_panel=_DATA)
    ] = None,
    size: Annotated[
        Count, typer.Option(min=8, help="Pixels of the square crop.", rich_help_panel=_DATA)
    ] = None,
    latent_scale: Annotated[
        Number, typer.Option(help="The model sees (latent - shift) * scale.", rich_help_panel=_DATA)
    ] = None,
    latent_shift: Annotated[Number, typer.Option(rich_help_panel=_DATA)] = None,
    cache: Annotated[
        File,
        typer.Option(
            help="For latents and features (default: in --output).", rich_help_panel=_DATA
        ),
    ] = None,
    encode_batch: Annotated[int, typer.Option(min=1, rich_help_panel=_DATA)] = 8,
    shape: Annotated[
        Text,
        typer.Option(
            help="sit-b/2, sit-l/2, sit-xl/2 or demo; sizes below change it.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    model: Annotated[
        File, typer.Option(help="A .safetensors file to fine-tune.", rich_help_panel=_MODEL)
    ] = None,
    hidden: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    depth: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    heads: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    patch: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    double_blocks: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    single_blocks: Annotated[int, typer.Option(min=0, rich_help_panel=_MODEL)] = 0,
    steps: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 10_000,
    batch: Annotated[
        int, typer.Option(min=1, help="Of all processes together.", rich_help_panel=_RUN)
    ] = 32,
    accumulate: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 1,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=_RUN)] = 2e-4,
    warm_up: Annotated[int, typer.Option(min=0, rich_help_panel=_RUN)] = 20,
    decay_from: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the run.", rich_help_panel=_RUN)
    ] = 1.0,
    weight_decay: Annotated[float, typer.Option(min=0.0, rich_help_panel=_RUN)] = 0.0,
    clip: Annotated[float, typer.Option(min=0.0, help="0: never.", rich_help_panel=_RUN)] = 2.0,
    ema: Annotated[float, typer.Option(min=0.0, rich_help_panel=_RUN)] = 0.9999,
    times: Annotated[
        str, typer.Option(help="logit-normal or uniform.", rich_help_panel=_RUN)
    ] = "logit-normal",
    drop: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share told nothing, for guidance.", rich_help_panel=_RUN
        ),
    ] = 0.1,
    precision: Annotated[
        Text,
        typer.Option(help="float32 or bfloat16 (default: accelerate's).", rich_help_panel=_RUN),
    ] = None,
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Less memory, more time.", rich_help_panel=_RUN),
    ] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Leave the accelerator alone.", rich_help_panel=_RUN)
    ] = False,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_RUN)] = 0,
    method: Annotated[
        str, typer.Option(help="ahpa, none, or another baseline.", rich_help_panel=_ALIGN)
    ] = "ahpa",
    block: Annotated[
        int, typer.Option(min=0, help="0: a quarter of the depth.", rich_help_panel=_ALIGN)
    ] = 0,
    later_block: Annotated[int, typer.Option(min=0, help="Of sra.", rich_help_panel=_ALIGN)] = 0,
    weight: Annotated[float, typer.Option(min=0.0, rich_help_panel=_ALIGN)] = 0.5,
    weight_hold: Annotated[int, typer.Option(min=0, rich_help_panel=_ALIGN)] = 0,
    weight_off: Annotated[
        int, typer.Option(min=0, help="No alignment from this step on.", rich_help_panel=_ALIGN)
    ] = 0,
    router_rate: Annotated[float, typer.Option(rich_help_panel=_ALIGN)] = 3e-3,
    projector_rate: Annotated[float, typer.Option(rich_help_panel=_ALIGN)] = 1e-3,
    entropy: Annotated[float, typer.Option(min=0.0, rich_help_panel=_ALIGN)] = 0.05,
    entropy_off: Annotated[int, typer.Option(min=0, rich_help_panel=_ALIGN)] = 0,
    levels: Annotated[str, typer.Option(rich_help_panel=_ALIGN)] = "middle, deep",
    width: Annotated[int, typer.Option(min=1, help="Of features.", rich_help_panel=_ALIGN)] = 64,
    router: Annotated[
        File, typer.Option(help="Of an ahpa run, for reversed, frozen.", rich_help_panel=_ALIGN)
    ] = None,
    vision: Annotated[
        File, typer.Option(help="For repa: transformers' folder.", rich_help_panel=_ALIGN)
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the run and its results.", rich_help_panel=_KEEP)
    ] = Path("calibri-train"),
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between two states.", rich_help_panel=_KEEP)
    ] = 500,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between two models.", rich_help_panel=_KEEP)
    ] = 0,
    preview_every: Annotated[
        int, typer.Option(min=0, help="Steps between two pictures.", rich_help_panel=_KEEP)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Train a DiT, as a whole, while one of its blocks is aligned to levels of its VAE.

    `accelerate launch -m comfyui_calibri train …` does it on several GPUs. Stopped with Ctrl-C or
    SIGTERM, or killed, it goes on when it is called again with the same options. Exits with 0, with
    1 and a sentence where something failed on the way (a loss that is no number, a full disk), with
    2 for what does not fit, with 3 where another process works in --output, with 130 or 143 when it
    was stopped.
    """
    with sentences(BAD_INPUT):
        from ..ahpa.recipe import Recipe
        from ..training.accelerated import join
        from .train_model import Sizes
        from .train_setup import Wanted
        from .train_world import Sources

        processes, device, chosen = join(cpu, precision)
        recipe = Recipe(
            steps=steps,
            batch=batch,
            accumulate=accumulate,
            learning_rate=learning_rate,
            warm_up=warm_up,
            decay_from=decay_from,
            weight_decay=weight_decay,
            clip=clip,
            ema=ema,
            method=method,
            block=block,
            later_block=later_block,
            weight=weight,
            weight_hold=weight_hold,
            weight_off=weight_off,
            router_rate=router_rate,
            projector_rate=projector_rate,
            entropy=entropy,
            entropy_off=entropy_off,
            levels=levels,
            width=width,
            times=times,
            empty_prompts=drop,
            precision=chosen,
            save_every=save_every,
            seed=seed,
        )
        wanted = Wanted(
            Sources(data, told, demo, pictures, vae, text_encoder, vision),
            shape,
            Sizes(hidden, depth, heads, patch, double_blocks, single_blocks),
            model,
            size,
            latent_scale,
            latent_shift,
            router,
            output,
            cache,
            encode_batch,
        )
    with _heard(processes.main):
        _train(
            wanted,
            recipe,
            processes,
            device,
            (preview_every, checkpoint_every),
            checkpointing,
            as_json,
        )


def _train(
    wanted: Wanted,
    recipe: Recipe,
    processes: Processes,
    device: torch.device,
    every: tuple[int, int],
    checkpointing: bool,
    as_json: bool,
) -> None:
    from ..training.lock import alone_in
    from .progress import bar
    from .train_setup import Told, prepare
    from .train_watch import Stop, Watch, in_words

    stop = Stop(processes, device)
    with contextlib.ExitStack() as held:
        with sentences(BAD_INPUT), terminable(), bar("pictures") as shown:
            if processes.main:
                held.enter_context(alone_in(wanted.folder))
            told = Told(shown.say, shown.count, stop.look_up)
            ready = prepare(wanted, recipe, processes, device, told)
        began = ready.run.trainer.loop.step
        with sentences(FAILED), bar("steps") as steps, stop.listening():
            if began:
                steps.say(f"Going on from step {began}.")
            watch = Watch(steps, ready.vae, ready.scaling, *every, processes.main)
            found = ready.run.train(watch, checkpointing)
    processes.close()
    if not processes.main:
        return
    files, losses = ready.run.files(), found.history.last_means()
    if as_json:
        told_all = {"state": "finished", "steps": recipe.steps, "began": began}
        typer.echo(json.dumps({**told_all, "losses": losses, "files": files}, ensure_ascii=False))
    else:
        typer.echo(f"Trained in {recipe.steps} steps: {in_words(losses)}. {files['model']}")


@contextlib.contextmanager
def _heard(main: bool) -> Iterator[None]:
    """Of several processes one speaks; what nobody expects is heard from all."""
    if main:
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()):
        yield
