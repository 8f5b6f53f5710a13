"""Routers and the alignment loss: weights that sum to 1, and no way to collapse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.ahpa.levels import Level
from comfyui_calibri.ahpa.loss import AlignmentLoss, Projector, Schedule
from comfyui_calibri.ahpa.projection import Moments
from comfyui_calibri.ahpa.router import (
    ContentRouter,
    DynamicRouter,
    FixedRouter,
    HandSetRouter,
    LookupRouter,
    ReversedRouter,
    SinusoidalTime,
    StaticRouter,
    entropy,
)

LEVELS = (Level("a", 2), Level("b", 2), Level("c", 3), Level("d", 3), Level("e", 3))
COUNT = len(LEVELS)
HIDDEN, WIDTH, TOKENS = 12, 6, 4

ROUTERS: dict[str, Callable[[], nn.Module]] = {
    "dynamic": lambda: DynamicRouter(LEVELS),
    "sinusoidal": lambda: DynamicRouter(LEVELS, SinusoidalTime()),
    "depth 3": lambda: DynamicRouter(LEVELS, depth=3),
    "depth 8": lambda: DynamicRouter(LEVELS, depth=8),
    "content": lambda: ContentRouter(LEVELS, HIDDEN),
    "lookup": lambda: LookupRouter(LEVELS),
    "static": lambda: StaticRouter(LEVELS),
    "fixed": lambda: FixedRouter(torch.tensor([0.0, 0, 2, 0, 2])),
    "by hand": lambda: HandSetRouter(LEVELS),
    "reversed": lambda: ReversedRouter(DynamicRouter(LEVELS)),
}
each_router = pytest.mark.parametrize("make", ROUTERS.values(), ids=ROUTERS)


def stirred(router: nn.Module) -> nn.Module:
    """With parameters of no special value."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g) * 0.1)
    return router


@each_router
def test_weights_are_shares(make: Callable[[], nn.Module]) -> None:
    weights = stirred(make())(torch.linspace(0, 1, 7), torch.randn(7, TOKENS, HIDDEN))
    assert weights.shape == (7, COUNT)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=-1), torch.ones(7))


@pytest.mark.parametrize("name", ["dynamic", "content", "lookup", "static"])
def test_training_begins_with_equal_groups(name: str) -> None:
    weights = ROUTERS[name]()(torch.rand(3), torch.randn(3, TOKENS, HIDDEN))
    expected = torch.tensor([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])
    assert torch.allclose(weights, expected.expand(3, -1))


def test_which_routers_know_the_time() -> None:
    times = torch.tensor([0.05, 0.95])
    for name, make in ROUTERS.items():
        weights = stirred(make())(times, torch.ones(2, TOKENS, HIDDEN))
        same = torch.allclose(weights[0], weights[1])
        assert same == (name in ("static", "fixed")), name


def test_the_reversed_router_is_the_router_turned_round_and_untrained() -> None:
    router = stirred(DynamicRouter(LEVELS))
    times = torch.rand(5)
    forward = router(1 - times)
    turned = ReversedRouter(router)
    assert torch.equal(turned(times), forward)
    assert not any(parameter.requires_grad for parameter in turned.parameters())


def test_by_hand_deep_levels_have_the_noise() -> None:
    weights = HandSetRouter(LEVELS)(torch.tensor([0.0, 0.25, 1.0]))
    assert weights[:, 2:].sum(dim=-1).tolist() == pytest.approx([0.0, 0.25, 1.0])


def test_a_bin_of_the_table_is_a_tenth_and_the_last_holds_one() -> None:
    router = LookupRouter(LEVELS)
    with torch.no_grad():
        router.table[9, 0] = 50.0
    weights = router(torch.tensor([0.89, 0.91, 1.0]))
    assert weights[0].sum().item() == pytest.approx(1)
    assert weights[0, :2].sum() < 0.6
    assert (weights[1:, :2].sum(dim=-1) > 0.99).all()


def test_entropy_is_in_nats() -> None:
    assert entropy(torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])).tolist() == pytest.approx(
        [0.0, math.log(3)], abs=1e-6
    )


def test_levels_of_a_group_that_are_torn_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="follow each other"):
        DynamicRouter((Level("a", 2), Level("c", 3), Level("b", 2)))


@pytest.fixture
def loss() -> AlignmentLoss:
    torch.manual_seed(0)
    return AlignmentLoss(Projector(HIDDEN, COUNT, WIDTH), stirred(DynamicRouter(LEVELS)))


def batch(size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    hidden = torch.randn(size, TOKENS, HIDDEN, generator=g)
    features = torch.randn(size, COUNT, TOKENS, WIDTH, generator=g)
    return hidden, features, torch.rand(size, generator=g)


def test_the_loss_is_the_formula(loss: AlignmentLoss) -> None:
    loss.entropy_weight = Schedule(0.2)
    hidden, features, times = batch()
    found = loss(hidden, features, times, 0)
    guess = loss.projector(hidden)
    cosine = (guess * features).sum(-1) / (guess.norm(dim=-1) * features.norm(dim=-1))
    levels = 1 - cosine.mean(-1)
    weights = loss.router(times, hidden)
    spread = -(weights * weights.log()).sum(-1).mean()
    expected = 0.5 * ((weights * levels / levels.mean(0)).sum(-1).mean() - 0.2 * spread)
    assert torch.allclose(found.loss, expected)
    assert torch.allclose(found.levels, levels)
    assert torch.allclose(found.weights, weights)
    assert found.entropy == pytest.approx(spread.item())


def test_nothing_of_the_target_is_trained_but_the_weights(loss: AlignmentLoss) -> None:
    hidden, features, times = batch()
    hidden.requires_grad_()
    features.requires_grad_()
    loss(hidden, features.detach(), times, 0).loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0
    assert all(p.grad is not None for p in loss.router.parameters())
    assert {name.split(".")[0] for name, _ in loss.named_parameters()} == {"projector", "router"}


def test_a_level_that_is_easy_everywhere_is_not_preferred() -> None:
    """Level 0 can be predicted ten times as well as the rest at every t: no reason to choose it."""
    torch.manual_seed(0)
    router = DynamicRouter(LEVELS[:1] + LEVELS[2:3])
    loss = AlignmentLoss(Projector(HIDDEN, 2, WIDTH), router).train()
    optimiser = torch.optim.Adam(router.parameters(), lr=1e-3)
    ease = torch.tensor([0.05, 0.5])
    for step in range(150):
        hidden, features, times = _predictable(loss.projector, ease.expand(32, 2), step)
        optimiser.zero_grad()
        loss(hidden, features, times, step).loss.backward()
        optimiser.step()
    weights = router(torch.linspace(0, 1, 5))
    assert (weights - 0.5).abs().max() < 0.2


def test_the_router_finds_which_level_is_predictable_when() -> None:
    """Level 1 (deep) where there is noise, level 0 (middle) where there is none."""
    torch.manual_seed(0)
    router = DynamicRouter(LEVELS[:1] + LEVELS[2:3])
    loss = AlignmentLoss(Projector(HIDDEN, 2, WIDTH), router).train()
    optimiser = torch.optim.Adam(router.parameters(), lr=1e-3)
    for step in range(150):
        times = torch.rand(32, generator=torch.Generator().manual_seed(step))
        miss = torch.stack([0.1 + 0.8 * times, 0.9 - 0.8 * times], dim=1)
        hidden, features, times = _predictable(loss.projector, miss, step, times)
        optimiser.zero_grad()
        loss(hidden, features, times, step).loss.backward()
        optimiser.step()
    middle, deep = router(torch.tensor([0.05, 0.95])).unbind(dim=1)
    assert middle[0] > 0.8
    assert deep[1] > 0.8


def _predictable(
    projector: Projector, miss: Tensor, step: int, times: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch in which 1 − cos of each level is about `miss` [B, L]."""
    g = torch.Generator().manual_seed(step)
    size = len(miss)
    times = torch.rand(size, generator=g) if times is None else times
    hidden = torch.randn(size, TOKENS, HIDDEN, generator=g)
    with torch.no_grad():
        guess = nn.functional.normalize(projector(hidden), dim=-1)
    other = torch.randn(guess.shape, generator=g)
    other = nn.functional.normalize(other - (other * guess).sum(-1, keepdim=True) * guess, dim=-1)
    cosine = (1 - miss)[:, :, None, None]
    return hidden, cosine * guess + (1 - cosine.square()).sqrt() * other, times


def test_the_running_means_are_saved_with_the_rest(loss: AlignmentLoss) -> None:
    other = copy.deepcopy(loss)
    for step in range(3):
        loss(*batch(), step)
    assert (loss.running > 0).all()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(*batch(), 3).loss, loss(*batch(), 3).loss)
    before = loss.running.clone()
    loss.eval()
    loss(*batch(), 4)
    assert torch.equal(loss.running, before)


def test_features_of_another_choice_are_named(loss: AlignmentLoss) -> None:
    hidden, features, times = batch()
    with pytest.raises(ValueError, match="another model, crop or choice of levels"):
        loss(hidden, features[:, 1:], times, 0)


def test_the_schedule_holds_falls_and_ends() -> None:
    schedule = Schedule(0.5, hold=10, off=20)
    assert [schedule.at(step) for step in (0, 9, 15, 20, 99)] == pytest.approx(
        [0.5, 0.5, 0.25, 0, 0]
    )
    assert Schedule(0.3).at(10**9) == 0.3


def test_the_term_is_off_from_its_step_on(loss: AlignmentLoss) -> None:
    loss.weight = Schedule(0.5, off=20)
    assert [loss.is_off(step) for step in (0, 19, 20, 21)] == [False, False, True, True]


def test_projected_features_are_white() -> None:
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 9, generator=g) @ torch.diag(torch.arange(1.0, 10.0))
    features = torch.randn(400, 3, 5, generator=g) @ mixing + 7
    moments = Moments(9)
    for part in features.split(64):
        moments.add(part)
    projected = moments.projection(8)(features).reshape(-1, 8)
    covariance = projected.T.cov()
    # Five directions hold all there is; the other columns are 0.
    assert torch.allclose(covariance[:5, :5], torch.eye(5), atol=0.01)
    assert (projected[:, 5:] == 0).all()
    assert projected.mean(dim=0).abs().max() < 1e-3


def test_features_that_are_all_alike_are_named() -> None:
    moments = Moments(4)
    moments.add(torch.ones(10, 4))
    with pytest.raises(ValueError, match="all alike"):
        moments.projection(2)
