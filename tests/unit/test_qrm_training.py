"""Training a QRM, on a model of two numbers."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from comfyui_calibri.qrm.code_search import search_train
from comfyui_calibri.qrm.losses import Latents, without_outliers
from comfyui_calibri.qrm.recipe import LossWeights, Recipe
from comfyui_calibri.qrm.training import Split, split_of, train
from comfyui_calibri.training.state import TrainingError

from .toy_training import RECIPE, SPLIT, ToyModule, ToyTrainee, score

PARENT = Path(__file__).parents[2]


def weights(module: ToyModule) -> list[float]:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).tolist()


def losses(**only: float) -> LossWeights:
    return LossWeights(
        **{**dict.fromkeys(("flow", "late", "last", "difficulty", "size"), 0.0), **only}
    )


@pytest.mark.parametrize("name", ["late", "last"])
def test_each_reward_loss_raises_the_reward_of_prompts_that_were_not_trained_on(name: str) -> None:
    recipe = replace(RECIPE, steps=40, losses=losses(**{name: 1.0}))
    found = train(ToyTrainee(), ToyModule(), score, recipe, SPLIT)
    assert found.plain_reward < -0.1
    assert found.best_reward > found.plain_reward / 4


def test_the_module_that_training_leaves_is_the_one_that_the_stopping_prompts_liked() -> None:
    module, trainee = ToyModule(), ToyTrainee()
    found = train(trainee, module, score, RECIPE, SPLIT)
    curve = dict(found.history.stopping)
    assert list(curve) == [0, 4, 8, 12]
    assert found.best_reward == max(curve.values()) == curve[found.best_step]
    again = train(ToyTrainee(), ToyModule(), score, replace(RECIPE, steps=found.best_step), SPLIT)
    assert again.plain_reward == found.plain_reward


def test_a_reward_that_only_falls_leaves_the_plain_model() -> None:
    module = ToyModule()
    start = weights(module)
    drawn: list[float] = []

    def falling(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        drawn.append(1.0)
        return images.mean(dim=(1, 2, 3)) * 0.01 - float(len(drawn))

    recipe = replace(RECIPE, steps=40, validate_every=2, patience=3, losses=losses(last=1.0))
    found = train(ToyTrainee(), module, falling, recipe, SPLIT)
    assert found.best_step == 0
    assert weights(module) == start
    assert found.history.steps == 6  # three validations without a better one


def test_a_steps_data_depend_on_seed_and_step_alone() -> None:
    def seen(recipe: Recipe) -> list[tuple[int, ...]]:
        trainee = ToyTrainee()
        train(trainee, ToyModule(), score, recipe, SPLIT, plain=dict.fromkeys(range(5), 0.0))
        return trainee.seen

    short = replace(RECIPE, steps=3, validate_every=50)
    long = seen(replace(short, steps=5))
    stopping = 3  # sampling steps of the one batch of stopping prompts at either end
    assert seen(short)[:-stopping] == long[: len(seen(short)) - stopping]
    assert seen(replace(short, seed=1)) != seen(short)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    script = Path(__file__).parent / "killed_training.py"
    package = tmp_path / "package"
    package.mkdir()
    (package / "comfyui_calibri").symlink_to(PARENT, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, script, package, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, killed = done.stdout.split()
    assert killed == whole
    assert len(whole) > 100


def test_cancel_keeps_the_last_finished_step(tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    steps: list[int] = []

    def cancel(step: int, losses: object, stopping: float) -> None:
        steps.append(step)
        if len(steps) == 5:
            raise CancelledError

    module = ToyModule()
    with pytest.raises(CancelledError):
        train(ToyTrainee(), module, score, RECIPE, SPLIT, folder=tmp_path, watch=cancel)
    train(ToyTrainee(), module, score, RECIPE, SPLIT, folder=tmp_path, watch=cancel)
    assert steps == list(range(1, 13))
    whole = ToyModule()
    train(ToyTrainee(), whole, score, RECIPE, SPLIT)
    assert weights(module) == weights(whole)


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_state_before_it(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def breaking(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        calls.append(1)
        rewards = score(images, prompts)
        return rewards * math.nan if images.requires_grad and len(calls) > 9 else rewards

    with pytest.raises(TrainingError, match=r"loss (last|late) of step \d+ is no finite number"):
        train(ToyTrainee(), ToyModule(), breaking, RECIPE, SPLIT, folder=tmp_path)
    seen: list[int] = []
    module = ToyModule()
    train(
        ToyTrainee(),
        module,
        score,
        RECIPE,
        SPLIT,
        folder=tmp_path,
        watch=lambda step, losses, stopping: seen.append(step),
    )
    assert seen[0] > 1
    assert all(map(math.isfinite, weights(module)))


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    train(ToyTrainee(), ToyModule(), score, RECIPE, SPLIT, folder=tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        train(ToyTrainee(), ToyModule(), score, replace(RECIPE, seed=7), SPLIT, folder=tmp_path)


def test_flow_matching_learns_the_pictures_it_is_given() -> None:
    trainee = ToyTrainee()
    rows = tuple(range(5))
    # Where the plain model's guess is wrong by one.
    held = Latents(trainee.conditions[list(rows)] + 1.0, rows)
    recipe = replace(RECIPE, steps=60, validate_every=60, losses=losses(flow=1.0))
    history = train(ToyTrainee(), ToyModule(), score, recipe, SPLIT, latents=held).history
    flow = [value for value in history.values["flow"] if value is not None]
    assert sum(flow[-10:]) < 0.5 * sum(flow[:10])
    with pytest.raises(TrainingError, match="no latents"):
        train(ToyTrainee(), ToyModule(), score, recipe, SPLIT)


def test_the_quality_token_learns_which_prompts_are_hard_for_the_plain_model() -> None:
    trainee, module = ToyTrainee(), ToyModule()
    recipe = replace(
        RECIPE, steps=150, validate_every=150, losses=losses(last=1e-6, difficulty=1.0)
    )
    found = train(trainee, module, score, recipe, SPLIT)
    rows = [0, 1, 2, 3, 4]
    with torch.no_grad():
        said = trainee.denoised(torch.zeros(5, 2), torch.full((5,), 0.3), rows, module).quality
    plain = torch.tensor([found.difficulty.rewards[row] for row in rows])
    assert torch.corrcoef(torch.stack([said, plain]))[0, 1] > 0.8


def test_no_pictures_gradient_outweighs_the_batchs_median() -> None:
    gradient = torch.tensor([[1.0, 0.0], [0.0, 2.0], [200.0, 0.0]])
    kept = without_outliers(gradient, 2.0)
    assert kept.norm(dim=1).tolist() == pytest.approx([1.0, 2.0, 4.0])
    assert without_outliers(gradient, 0.0) is gradient


def test_the_search_raises_a_reward_without_a_gradient_and_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    def blind(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        assert not images.requires_grad
        return score(images, prompts)

    recipe = replace(RECIPE, steps=20)
    seen: list[int] = []

    def stop(generation: int, reward: float) -> None:
        seen.append(generation)
        if generation == 5:
            raise KeyboardInterrupt

    module, whole = ToyModule(), ToyModule()
    with pytest.raises(KeyboardInterrupt):
        search_train(ToyTrainee(), module, blind, recipe, SPLIT, folder=tmp_path, watch=stop)
    halted = ToyTrainee()
    search_train(halted, module, blind, recipe, SPLIT, folder=tmp_path)
    full = ToyTrainee()
    found = search_train(full, whole, blind, recipe, SPLIT)
    assert weights(module) == weights(whole)
    assert found.best_reward > 0.8 * found.plain_reward
    assert len(halted.seen) < len(full.seen)  # what was known was not drawn again


def test_a_prompt_has_one_role() -> None:
    with pytest.raises(TrainingError, match="'b'"):
        split_of(["a", "b"], ["b", "c"])
    assert split_of(["a"], ["b", "c"]) == (("a", "b", "c"), Split((0,), (1, 2)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": math.nan}, "learning rate"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        Recipe(**changes)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="No loss"):
        losses(size=1.0)
