"""Training with alignment: every method learns, from data that belong to the step alone."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from comfyui_calibri.ahpa.hidden import HiddenError, HiddenReader, chosen_block, read_blocks
from comfyui_calibri.ahpa.methods import METHODS, NOTHING, router_of
from comfyui_calibri.ahpa.recipe import Recipe
from comfyui_calibri.ahpa.router import DynamicRouter
from comfyui_calibri.ahpa.training import (
    SELF_INTERVAL,
    Trainer,
    draw,
    mixed,
    validation_loss,
)
from comfyui_calibri.training.state import TrainingError

from .ahpa_subject import LEVELS, PICTURES, RECIPE, STEPS, TinySubject, features, trainer


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_the_model_and_says_what_it_did(method: str) -> None:
    subject = TinySubject()
    before = {name: value.detach().clone() for name, value in subject.parameters.items()}
    found = trainer(subject, method=method).train()
    assert found.history.steps == STEPS
    assert all(math.isfinite(value or 0) for value in found.history.values["flow"])
    assert any(not torch.equal(before[n], v) for n, v in subject.parameters.items())
    assert ("alignment" in found.history.values) == (METHODS[method].target != NOTHING)


@pytest.mark.parametrize("method", ["ahpa", "static", "content", "lookup", "frozen", "uniform"])
def test_only_a_router_that_learns_moves(method: str) -> None:
    run = trainer(TinySubject(), method=method, entropy=0.0)
    assert run.alignment is not None
    router = run.alignment.router
    before = [value.clone() for value in router.state_dict().values()]
    projector = [p.clone() for p in run.alignment.projector.parameters()]
    run.train()
    moved = any(
        not torch.equal(a, b) for a, b in zip(before, router.state_dict().values(), strict=True)
    )
    assert moved == (method not in ("frozen", "uniform"))
    for now, then in zip(run.alignment.projector.parameters(), projector, strict=True):
        assert not torch.equal(now, then)


def test_the_loss_of_a_step_is_flow_matching() -> None:
    subject = TinySubject()
    run = trainer(subject, method="none")
    batch = draw(run.recipe, subject.latents, 0)
    clean = subject.latents[batch.rows]
    with torch.no_grad():
        x = (1 - batch.t)[:, None, None, None] * clean
        x = x + batch.t[:, None, None, None] * batch.noise
        said = subject.velocity(x, batch.t, batch.rows, batch.empty)
        expected = (said - (batch.noise - clean)).square().mean()
    run.train()
    assert run.loop.history.values["flow"][0] == pytest.approx(float(expected), rel=1e-5)


def test_alignment_acts_on_the_model_until_it_is_off() -> None:
    plain, aligned, off = TinySubject(), TinySubject(), TinySubject()
    trainer(plain, method="none").train()
    trainer(aligned).train()
    run = trainer(off, weight=0.0)
    run.train()
    names = list(plain.parameters)
    assert all(torch.equal(plain.parameters[n], off.parameters[n]) for n in names)
    assert any(not torch.equal(plain.parameters[n], aligned.parameters[n]) for n in names)
    early = trainer(TinySubject(), weight_off=2)
    early.train()
    assert [value is None for value in early.loop.history.values["alignment"]] == [
        False,
        False,
        True,
    ]


def test_captions_that_cannot_share_a_call_change_nothing() -> None:
    together, apart = TinySubject(), TinySubject(apart=True)
    one, other = trainer(together), trainer(apart)
    one.train()
    other.train()
    assert len(apart.seen) > len(together.seen)
    for name, values in one.loop.history.values.items():
        assert values == pytest.approx(other.loop.history.values[name], rel=1e-3)


def test_times_are_spread_and_the_batch_belongs_to_its_step() -> None:
    recipe, latents = Recipe(batch=64), TinySubject().latents
    first, again, other = (
        draw(recipe, latents, 3),
        draw(recipe, latents, 3),
        draw(recipe, latents, 4),
    )
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.noise, other.noise)
    even = draw(Recipe(batch=64, times="uniform"), latents, 3).t
    assert torch.allclose(even, (torch.arange(64) + 0.5) / 64, atol=1 / 64)
    assert ((first.t - 0.5).abs() < 0.25).sum() > 40 > ((even - 0.5).abs() < 0.25).sum()
    assert torch.equal(mixed(latents, latents * 2, torch.ones(PICTURES)), latents * 2)


def test_self_alignment_looks_at_the_same_pictures_with_less_noise() -> None:
    subject = TinySubject()
    run = trainer(subject, method="sra")
    subject.seen.clear()
    run.train()
    teacher, student = subject.seen[0], subject.seen[1]
    less = student - teacher
    assert ((less >= 0) & (less <= SELF_INTERVAL)).all()
    assert less.max() > 0
    assert len(subject.seen) == 2 * STEPS


def test_a_block_of_its_own_that_is_not_later_is_refused() -> None:
    with pytest.raises(TrainingError, match="a block of its own that comes later"):
        trainer(TinySubject(), method="sra", block=2, later_block=2)


def test_what_a_method_lacks_is_named() -> None:
    subject = TinySubject()
    with pytest.raises(TrainingError, match="'repa' needs features"):
        Trainer(subject, Recipe(method="repa"), (), None)
    with pytest.raises(TrainingError, match="needs a router that was trained before"):
        router_of("reversed", LEVELS, 8)
    with pytest.raises(TrainingError, match="trained on 3 levels and 2"):
        router_of("frozen", LEVELS[:2], 8, DynamicRouter(LEVELS))
    with pytest.raises(TrainingError, match="no method 'best'"):
        router_of("best", LEVELS, 8)
    with pytest.raises(TrainingError, match="1 tokens and the model 2 x 2"):
        Trainer(subject, RECIPE, LEVELS, lambda rows: features(rows)[:, :, :1])
    with pytest.raises(TrainingError, match="learning_rate is 0"):
        Recipe(learning_rate=0.0)


def test_a_subject_ends_with_its_average_and_validation_does_not_move_it() -> None:
    subject = TinySubject()
    run = trainer(subject)
    run.train()
    for name, value in run.averaged.items():
        assert torch.equal(subject.parameters[name], value)
    rows = torch.arange(PICTURES)
    first = validation_loss(subject, rows, seed=1, count=16, batch=4)
    assert first == validation_loss(subject, rows, seed=1, count=16, batch=4)
    assert first > 0


def test_blocks_are_counted_in_the_order_in_which_they_run() -> None:
    model = TinySubject().model
    blocks = read_blocks(model)
    assert [block.name for block in blocks] == ["double.0", "double.1", "single.0", "single.1"]
    assert chosen_block(blocks, 3).module == "single_blocks.0"
    assert chosen_block(blocks, 0).name == "double.0"
    with pytest.raises(HiddenError, match="has 4 blocks"):
        chosen_block(blocks, 5)
    with pytest.raises(HiddenError, match="fits none of the families"):
        read_blocks(nn.Linear(2, 2))
    reader = HiddenReader(model, blocks[0], 4)
    with reader, pytest.raises(RuntimeError, match="did not run"):
        _ = reader.tokens


def test_a_reader_keeps_the_last_of_several_runs_and_leaves_no_hook() -> None:
    subject = TinySubject()
    reader = HiddenReader(subject.model, read_blocks(subject.model)[2], 4)
    rows, empty = torch.tensor([0]), torch.tensor([False])
    with reader:
        subject.velocity(torch.randn(1, 16, 4, 4), torch.ones(1), rows, empty)
        first = reader.tokens
        subject.velocity(torch.randn(1, 16, 4, 4), torch.ones(1), rows, empty)
        assert first.shape == (1, 4, 128)
        assert not torch.equal(first, reader.tokens)
    assert not any(module._forward_hooks for module in subject.model.modules())


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_ahpa.py")
    package = tmp_path / "package"
    package.mkdir()
    (package / "comfyui_calibri").symlink_to(Path(__file__).parents[2])
    arguments = [sys.executable, str(script), str(package), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, resumed = TinySubject(), TinySubject()
        trainer(whole, steps=5).train()
        run = trainer(resumed, tmp_path, steps=5)
        assert run.loop.step == 2  # the last state that was kept
        run.train()
    finally:
        torch.set_num_threads(threads)
    for name, value in whole.parameters.items():
        assert torch.equal(value, resumed.parameters[name]), name
