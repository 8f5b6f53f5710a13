"""`train-qrm`: a Quality Representation Module trained on a ComfyUI model or on the demo model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .exit_codes import BAD_INPUT, sentences, terminable
from .run_options import Base, ComfyUI

if TYPE_CHECKING:
    from ..qrm.recipe import Recipe

File = Optional[Path]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
Text = Optional[str]  # noqa: UP045
_MODEL, _RUN, _LOSSES = "Model", "Training", "Losses"
_STEPS = 4  # of the demo's sampling


def train_qrm(
    demo: Annotated[
        bool, typer.Option("--demo", help="On the pack's demo model, without ComfyUI.")
    ] = False,
    checkpoint: Annotated[
        File, typer.Option(help="A model in one file.", rich_help_panel=_MODEL)
    ] = None,
    diffusion_model: Annotated[
        File, typer.Option(help="A model without the rest.", rich_help_panel=_MODEL)
    ] = None,
    text_encoder: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Its text encoder; again for more.", rich_help_panel=_MODEL),
    ] = None,
    text_encoder_type: Annotated[
        Text, typer.Option(help="As in ComfyUI's Load CLIP.", rich_help_panel=_MODEL)
    ] = None,
    vae: Annotated[File, typer.Option(help="Its VAE.", rich_help_panel=_MODEL)] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the accelerator alone.")] = False,
    prompts: Annotated[File, typer.Option(help="To train on: .txt, .csv or .json.")] = None,
    held_out: Annotated[
        File, typer.Option(help="To stop by (default: a quarter of the prompts).")
    ] = None,
    reward: Annotated[str, typer.Option(help="As in `calibrate`; demo for the demo.")] = "demo",
    output: Annotated[
        Path, typer.Option(help="Folder of the demo's result; ComfyUI's runs have theirs.")
    ] = Path("calibri-qrm"),
    run_name: Annotated[str, typer.Option(help="Names a ComfyUI run's folders.")] = "qrm",
    steps: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 400,
    batch: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 4,
    accumulate: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 1,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=_RUN)] = 1e-3,
    backward_steps: Annotated[
        int, typer.Option(min=1, help="Last steps with gradients.", rich_help_panel=_RUN)
    ] = 1,
    validate_every: Annotated[int, typer.Option(min=1, rich_help_panel=_RUN)] = 25,
    patience: Annotated[int, typer.Option(min=0, rich_help_panel=_RUN)] = 4,
    precision: Annotated[str, typer.Option(rich_help_panel=_RUN)] = "bfloat16",
    mode: Annotated[str, typer.Option(help="add, scale or gates.", rich_help_panel=_RUN)] = "add",
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_RUN)] = 0,
    late: Annotated[float, typer.Option(min=0.0, rich_help_panel=_LOSSES)] = 1.0,
    last: Annotated[float, typer.Option(min=0.0, rich_help_panel=_LOSSES)] = 1.0,
    difficulty: Annotated[float, typer.Option(min=0.0, rich_help_panel=_LOSSES)] = 0.1,
    size: Annotated[float, typer.Option(min=0.0, rich_help_panel=_LOSSES)] = 0.01,
    sampling_steps: Annotated[int, typer.Option(min=1)] = 10,
    cfg: Annotated[float, typer.Option()] = 1.0,
    guidance: Annotated[float, typer.Option(help="As in FluxGuidance.")] = 3.5,
    scheduler: Annotated[str, typer.Option()] = "simple",
    width: Annotated[int, typer.Option()] = 512,
    height: Annotated[int, typer.Option()] = 512,
    negative: Annotated[str, typer.Option()] = "",
) -> None:
    """Train a module that tells each block how to modulate, so that a reward rises.

    Stopped with Ctrl-C or SIGTERM it goes on when it is called again with the same options. Exits
    with 0, with 2 and a sentence for what does not fit, with 130 or 143 when it was stopped.
    """
    with sentences(BAD_INPUT), terminable():
        from ..calibri.prompt_sets import read_prompt_set
        from ..qrm.recipe import LossWeights, Recipe

        recipe = Recipe(
            steps=steps,
            batch=batch,
            accumulate=accumulate,
            learning_rate=learning_rate,
            backward_steps=backward_steps,
            validate_every=validate_every,
            patience=patience,
            precision=precision,
            seed=seed,
            losses=LossWeights(0.0, late, last, difficulty, size),
        )
        if demo:
            _train_demo(recipe, mode, output)
            return
        if prompts is None:
            raise ValueError("There are no prompts: give --prompts, or --demo.")
        texts = [tuple(one.text for one in read_prompt_set(prompts))]
        if held_out is not None:
            texts.append(tuple(one.text for one in read_prompt_set(held_out)))
        from ..nodes import headless

        headless.start_comfyui(headless.find_comfyui(comfyui), cpu or None, base_directory)
        from ..nodes.qrm_trainee import Drawing
        from ..nodes.qrm_training import train_qrm as train_in_comfyui

        loaded = headless.load(
            headless.ModelFiles(
                checkpoint, diffusion_model, tuple(text_encoder or ()), text_encoder_type, vae
            )
        )
        drawing = Drawing(scheduler, sampling_steps, cfg, guidance, width, height, negative)
        result = train_in_comfyui(
            model=loaded.model,
            clip=loaded.clip,
            vae=loaded.vae,
            prompts=texts[0],
            held_out=texts[1] if len(texts) > 1 else None,
            reward=headless.reward_named(reward),
            drawing=drawing,
            recipe=recipe,
            mode=mode,
            run_name=run_name,
            say=_say,
        )
        typer.echo(result.text)


def _train_demo(recipe: Recipe, mode: str, folder: Path) -> None:
    import torch

    from ..calibri.presets import fingerprint
    from ..calibri.report import save_picture
    from ..demo.pictures import DemoModels
    from ..demo.prompts import generate_prompts
    from ..demo.trainee import DemoTrainee
    from ..demo.weights import DIT
    from ..qrm.config import QRMConfig
    from ..qrm.figure_training import draw_training
    from ..qrm.files import QRMFile, save_qrm
    from ..qrm.module import QRM
    from ..qrm.training import split_of, train

    module_file = folder / "qrm.safetensors"
    if module_file.exists():
        raise FileExistsError(f"There is a QRM in {module_file} already: name another --output.")
    models = DemoModels.load()
    prompts, split = split_of(generate_prompts(192, 1), generate_prompts(64, 1, "test"))
    torch.manual_seed(recipe.seed)
    config = QRMConfig.for_backbone(models.dit, 64, 64, mode)
    module = QRM(config)
    found = train(
        DemoTrainee(models, prompts, _STEPS),
        module,
        models.reward.score,
        recipe,
        split,
        folder=folder,
        about={"mode": mode},
        watch=partial(_tell, recipe),
    )
    title = f"{Path(DIT).name}: {models.reward.name}"
    record = {"recipe": recipe.record(), "stopping_reward": found.best_reward}
    record |= {"best_step": found.best_step, "plain_reward": found.plain_reward}
    made = QRMFile(
        module.eval().requires_grad_(False),
        title,
        Path(DIT).name,
        fingerprint(models.dit),
        training=record,
    )
    save_qrm(module_file, made)
    save_picture(folder / "report.png", draw_training(found, models.reward.name))
    typer.echo(
        f"{found.plain_reward:.4g} plain, {found.best_reward:.4g} after {found.best_step} steps on "
        f"the stopping prompts. The QRM and its report are in {folder}."
    )


def _tell(recipe: Recipe, step: int, losses: Mapping[str, float], stopping: float) -> None:
    if step % recipe.validate_every == 0 or step == recipe.steps:
        said = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        _say(f"Step {step} of {recipe.steps}: {stopping:.4g} held out; {said}")


def _say(text: str) -> None:
    typer.echo(text, err=True)
