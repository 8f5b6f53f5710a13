"""Rewards made of rewards: one scale, floors, names that tell two of them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from comfyui_calibri.rewards.compose import Floor, Part, Spread, WeightedSum
from comfyui_calibri.rewards.protocol import Card, Reward

PLAIN = torch.linspace(0, 1, 12).view(12, 1, 1, 1).expand(12, 4, 4, 3)
PROMPTS = [""] * 12


class Channel:
    """A reward of the images' mean; `answer` makes its scale."""

    def __init__(
        self, name: str, answer: Callable[[Tensor], Tensor], differentiable: bool = True
    ) -> None:
        self.name, self._answer, self.differentiable = name, answer, differentiable
        self.card = Card("tests", (0.0, 1.0), f"licence of {name}", 100, 8)
        self.weights = ""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._answer(images.mean((1, 2, 3)))


def part(reward: Reward, weight: float) -> Part:
    return Part(reward, weight, Spread.measure(reward, PLAIN, PROMPTS))


def test_scales_do_not_matter_and_an_average_image_scores_zero() -> None:
    small, large = Channel("small", lambda x: 0.001 * x), Channel("large", lambda x: 1000 * x + 7e3)
    alone = WeightedSum([part(small, 1.0)])
    both = WeightedSum([part(small, 1.0), part(large, 1.0)])
    scores = both.score(PLAIN, PROMPTS)
    torch.testing.assert_close(scores, 2 * alone.score(PLAIN, PROMPTS), rtol=0.02, atol=0.02)
    assert abs(float(scores.mean())) < 0.02
    assert float(alone.score(PLAIN, PROMPTS).std()) == pytest.approx(1.0, abs=0.01)


def test_a_negative_weight_turns_a_reward_round() -> None:
    light = Channel("light", lambda x: x)
    liked, avoided = (WeightedSum([part(light, weight)]) for weight in (0.5, -0.5))
    torch.testing.assert_close(liked.score(PLAIN, PROMPTS), -avoided.score(PLAIN, PROMPTS))
    assert int(avoided.score(PLAIN, PROMPTS).argmax()) == 0


def test_sums_of_sums_and_their_gradients() -> None:
    light, square = Channel("light", lambda x: x), Channel("square", lambda x: x * x)
    inner = WeightedSum([part(light, 1.0), part(square, 2.0)])
    outer = WeightedSum([part(inner, 1.0), part(light, 1.0)])
    images = PLAIN.clone().requires_grad_()
    outer.score(images, PROMPTS).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.flatten(1).sum(1).gt(0).all())


def test_the_name_tells_weights_and_scales_apart() -> None:
    light = Channel("light", lambda x: x)
    names = {WeightedSum([part(light, weight)]).name for weight in (1.0, 2.0)}
    other = Channel("light", lambda x: x / 2)
    names.add(WeightedSum([part(other, 1.0)]).name)
    assert names == {"+1 light (0.5 ± 0.328)", "+2 light (0.5 ± 0.328)", "+1 light (0.25 ± 0.164)"}


def test_a_sum_is_what_its_parts_are() -> None:
    light = Channel("light", lambda x: x)
    fixed = Channel("fixed", lambda x: -x, differentiable=False)
    total = WeightedSum([part(light, 1.0), part(fixed, -2.0), part(fixed, 0.0)])
    assert not total.differentiable
    assert total.card.memory == 200
    assert total.card.licence == "licence of light; licence of fixed"
    assert total.card.typical == (-3.0, 3.0)
    assert isinstance(total, Reward)


def test_a_floor_costs_nothing_above_and_grows_below() -> None:
    light, dark = Channel("light", lambda x: 10 * x), Channel("dark", lambda x: 1 - x)
    spreads = [Spread.measure(reward, PLAIN, PROMPTS) for reward in (light, dark)]
    kept = Floor(light, spreads[0], dark, spreads[1], strength=3.0, tolerance=0.0)
    plain = light.score(PLAIN, PROMPTS)
    lost = plain - kept.score(PLAIN, PROMPTS)
    assert bool((lost[:6] == 0).all())  # darker than the mean
    assert bool((lost[6:].diff() > 0).all())
    # One of the guard's spreads too low costs three of the reward's.
    image = torch.full((1, 4, 4, 3), 1 - spreads[1].mean + spreads[1].deviation)
    cost = light.score(image, [""]) - kept.score(image, [""])
    assert float(cost) == pytest.approx(3 * spreads[0].deviation, rel=1e-4)
    free = Floor(light, spreads[0], dark, spreads[1], strength=3.0, tolerance=10.0)
    torch.testing.assert_close(free.score(PLAIN, PROMPTS), plain)
    assert kept.name != free.name


def test_a_floor_is_the_plain_models_mean_however_far_from_zero() -> None:
    light, far = Channel("light", lambda x: x), Channel("far", lambda x: 1000.4 + 0.2 * x)
    spread = Spread.measure(far, PLAIN, PROMPTS)
    answers = far.score(PLAIN, PROMPTS).double()
    assert spread.mean == pytest.approx(float(answers.mean()), abs=0.01 * spread.deviation)
    kept = Floor(light, Spread(0.5, 0.3), far, spread, strength=1.0, tolerance=0.0)
    lost = light.score(PLAIN, PROMPTS) - kept.score(PLAIN, PROMPTS)
    assert bool((lost[:6] > 0).all())
    assert bool((lost[6:] == 0).all())
    other = Floor(light, Spread(0.5, 0.3), far, Spread(1000.6, 0.07), strength=1.0, tolerance=0.0)
    assert str(spread.mean) in kept.name
    assert kept.name != other.name


def test_what_gives_no_scale_is_refused() -> None:
    constant = Channel("constant", lambda x: torch.full_like(x, 3.0))
    with pytest.raises(ValueError, match="constant scores all 12 images 3"):
        Spread.measure(constant, PLAIN, PROMPTS)
    with pytest.raises(ValueError, match="at least 2 images"):
        Spread.measure(constant, PLAIN[:1], PROMPTS[:1])
    with pytest.raises(ValueError, match="Every weight is 0"):
        WeightedSum([part(Channel("light", lambda x: x), 0.0)])


def test_a_part_that_answers_nonsense_is_named() -> None:
    light = Channel("light", lambda x: x)
    total = WeightedSum([part(light, 1.0)])
    light._answer = lambda x: x / 0 * 0
    with pytest.raises(ValueError, match="light gave 12 of 12 images a score that is NaN"):
        total.score(PLAIN, PROMPTS)


def test_what_is_made_of_rewards_tells_their_weights() -> None:
    first, second = Channel("first", lambda x: x), Channel("second", lambda x: x)
    first.weights, second.weights = "1a", "2b"
    total = WeightedSum([part(first, 1.0), part(second, -1.0)])
    spread = Spread(0.5, 0.1)
    floor = Floor(total, spread, second, spread, 1.0, 0.0)
    assert (total.weights, floor.weights) == ("1a 2b", "1a 2b 2b")
