"""`evaluate`: the plain model against presets, on a ComfyUI model or on the demo model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .exit_codes import BAD_INPUT, FAILED, sentences, terminable
from .run_options import Base, ComfyUI, User

if TYPE_CHECKING:
    from ..calibri.comparison import Comparison, Painter
    from ..calibri.comparison_files import ComparisonFiles
    from ..calibri.presets import Preset

MOST = 3  # presets, and rewards beside the first; as the node has inputs
DRAWN = "drawn"  # the folder of finished batches, in the report's


class _Evaluation(NamedTuple):
    """What can begin, or go on: nothing is drawn yet."""

    comparison: Comparison
    painter: Painter
    about: Mapping[str, Any]


def evaluate(
    presets: Annotated[
        list[Path], typer.Argument(metavar="PRESET.safetensors", help="Up to three presets.")
    ],
    demo: Annotated[
        bool, typer.Option("--demo", help="On the pack's demo model, without ComfyUI.")
    ] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="A model in one file.")] = None,
    diffusion_model: Annotated[
        Path | None, typer.Option(help="A model without text encoder and VAE.")
    ] = None,
    text_encoder: Annotated[
        list[Path] | None, typer.Option(help="Its text encoder; again for a second or third.")
    ] = None,
    text_encoder_type: Annotated[
        str | None, typer.Option(help="As in ComfyUI's Load CLIP (default: the model's family).")
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="Its VAE.")] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the accelerator alone.")] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A .txt (one a line), .csv or .json; the demo makes its own without."),
    ] = None,
    max_prompts: Annotated[int, typer.Option(min=2, help="The first so many are drawn.")] = 32,
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Diversity needs two.")] = 2,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="demo, ImageReward, PickScore … or a name of rewards.yaml; again for more. What "
            "counts most comes first."
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Numbers of steps.")] = "4, 8, 15, 30",
    cfg: Annotated[
        str | None, typer.Option(help="CFG scales (default: the first preset's, or 1).")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="512x512, 768x512 (default: the first preset's).")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="One or several (default: the first preset's, or euler).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="(default: the first preset's, or simple).")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="As in FluxGuidance (default: the first preset's, or 3.5).")
    ] = None,
    negative: Annotated[str, typer.Option(help="The negative prompt; unused at cfg 1.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of all noise.")] = 0,
    output: Annotated[Path, typer.Option(help="The folder for the report.")] = Path(
        "calibri-evaluation"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another evaluation's report in --output.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report's numbers, for scripts.")
    ] = False,
) -> None:
    """Compare the plain model with presets on the same prompts and noise, over steps and more.

    Stopped with Ctrl-C or SIGTERM it goes on when it is called again with the same --output. Exits
    with 0, with 1 where the evaluation failed, with 2 and a sentence for bad input, with 130 when
    stopped and 143 when terminated.
    """
    with terminable(), sentences(BAD_INPUT):
        from ..calibri.presets import load_preset
        from ..calibri.setting_lists import parse_names
        from ..demo.scenes import IMAGE_SIZE

        if not demo and checkpoint is None and diffusion_model is None:
            raise ValueError("There is no model: give --checkpoint, --diffusion-model or --demo.")
        if len(presets) > MOST:
            raise ValueError(f"There are {len(presets)} presets: give at most {MOST}.")
        loaded = [load_preset(path) for path in presets]
        found, side = loaded[0].sampling, IMAGE_SIZE if demo else 512
        asked = {
            "steps": steps,
            "cfg": cfg or str(found.get("cfg") or 1),
            "sizes": sizes or f"{found.get('width') or side}x{found.get('height') or side}",
            "samplers": parse_names(sampler or str(found.get("sampler") or "euler")) or ("",),
            "scheduler": scheduler or str(found.get("scheduler") or "simple"),
            "images_per_prompt": images_per_prompt,
            "seed": seed,
        }
        texts = _prompts(prompts, max_prompts, demo)
        if demo:
            _refuse(
                "--demo has a model and rewards of its own",
                checkpoint=checkpoint,
                diffusion_model=diffusion_model,
                text_encoder=text_encoder,
                vae=vae,
                reward=reward,
                negative=negative,
                guidance=guidance,
            )
            prepared = _on_demo(loaded, texts, asked)
        else:
            from ..nodes.headless import ModelFiles, find_comfyui, start_comfyui

            if not reward or len(reward) > 1 + MOST:
                raise ValueError(
                    f"There are {len(reward or ())} rewards: give --reward, up to {1 + MOST} times."
                )
            place = find_comfyui(comfyui)
            start_comfyui(place, True if cpu else None, base_directory, user_directory)
            files = ModelFiles(
                checkpoint, diffusion_model, tuple(text_encoder or ()), text_encoder_type, vae
            )
            if guidance is None:
                told = found.get("guidance")
                guidance = 3.5 if told is None else float(told)
            asked |= {"negative": negative, "guidance": guidance}
            prepared = _on_comfyui(files, loaded, reward, texts, asked)
        _check_output(output, str(prepared.about["id"]), overwrite)
    with terminable(), sentences(FAILED):
        report, files_ = _run(prepared, output)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    from ..calibri import comparison_words

    for sentence in comparison_words.sentences(report):
        typer.echo(sentence)
    typer.echo(f"The report is {files_.page}.")


def _on_demo(
    presets: Sequence[Preset], prompts: tuple[str, ...], asked: dict[str, Any]
) -> _Evaluation:
    """By the command line's own sampler."""
    from ..calibri.setting_lists import parse_settings
    from ..demo.comparison import demo_comparison
    from ..demo.pictures import DemoModels

    settings = parse_settings(
        asked["steps"],
        asked["cfg"],
        asked["samplers"],
        asked["scheduler"],
        asked["sizes"],
    )
    comparison, painter, about = demo_comparison(
        DemoModels.load(), presets, settings, prompts, asked["images_per_prompt"], asked["seed"]
    )
    for setting in settings:
        painter.plan(setting, comparison.samples)
    return _Evaluation(comparison, painter, {**about, "id": _id(comparison, painter)})


def _on_comfyui(
    files: Any,
    presets: Sequence[Preset],
    rewards: Sequence[str],
    prompts: tuple[str, ...],
    asked: dict[str, Any],
) -> _Evaluation:
    """By ComfyUI's sampler, through the node's own evaluation."""
    import torch

    from ..nodes.evaluation_run import prepare_evaluation
    from ..nodes.headless import load, reward_named

    first, *others = asked.pop("samplers")
    scored = [reward_named(name) for name in rewards]
    with torch.inference_mode():
        loaded = load(files)
        prepared = prepare_evaluation(
            model=loaded.model,
            clip=loaded.clip,
            vae=loaded.vae,
            prompts=prompts,
            max_prompts=len(prompts),
            reward=scored[0],
            **{f"other_reward_{number}": other for number, other in enumerate(scored[1:], 1)},
            **{f"preset_{number}": preset for number, preset in enumerate(presets, 1)},
            sampler=first,
            other_samplers=" ".join(others),
            say=lambda _: None,
            **asked,
        )
    return _Evaluation(prepared.comparison, prepared.painter, prepared.about)


def _run(prepared: _Evaluation, folder: Path) -> tuple[dict[str, Any], ComparisonFiles]:
    import torch

    from ..calibri.comparison_course import compare
    from ..calibri.comparison_files import save_comparison
    from ..calibri.comparison_report import build_comparison
    from ..calibri.comparison_store import PartFolder
    from .progress import bar

    with torch.inference_mode(), bar() as shown:
        cells = compare(
            prepared.comparison,
            prepared.painter,
            PartFolder(folder / DRAWN),
            lambda step: shown.count(step.done, step.total),
        )
    report = build_comparison(prepared.comparison, cells, prepared.about)
    return report, save_comparison(folder, report, cells)


def _prompts(path: Path | None, most: int, demo: bool) -> tuple[str, ...]:
    if path is None and not demo:
        raise ValueError("There are no prompts: give --prompts a .txt file, one prompt a line.")
    if path is None:
        from ..demo.comparison import evaluation_prompts

        return evaluation_prompts(most)
    from ..calibri.prompt_sets import read_prompt_set

    return tuple(prompt.text for prompt in read_prompt_set(path))[:most]


def _refuse(why: str, **options: object) -> None:
    """ValueError where one of `options`, which mean nothing here, was given."""
    for name, value in options.items():
        if value not in (None, "", []):
            raise ValueError(f"{why}: leave out --{name.replace('_', '-')}.")


def _check_output(folder: Path, key: str, overwrite: bool) -> None:
    """ValueError where files lie in the report's place that are not this evaluation's."""
    from ..calibri.comparison_files import FIGURE, GRID, NUMBERS, PAGE

    found = [name for name in (NUMBERS, PAGE, FIGURE, GRID) if (folder / name).exists()]
    if not found or overwrite:
        return
    try:
        held = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["about"]["id"]
    except (OSError, ValueError, KeyError, TypeError):
        held = None
    if held != key:
        what = "the report of another evaluation" if NUMBERS in found else f"another {found[0]}"
        raise ValueError(
            f"{folder} holds {what}: name another folder with --output, or give --overwrite; what "
            "was drawn is kept in either case."
        )


def _id(comparison: Comparison, painter: Painter) -> str:
    marks = [painter.mark(variant) for variant in range(len(comparison.variants))]
    told = json.dumps([asdict(comparison), marks])
    return hashlib.sha256(told.encode()).hexdigest()[:32]
