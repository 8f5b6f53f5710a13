"""Gains on the demo's Flux: exact, per sample, and gone after the call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Backbone, read_backbone
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.demo.model import Flux, FluxConfig

SAMPLES = 3


class Call(Protocol):
    """One denoising call of a model on fixed inputs, or on some of its samples."""

    def __call__(self, model: Callable[..., Tensor], rows: slice = ...) -> Tensor: ...


def linear_at(model: nn.Module, path: str) -> nn.Linear:
    linear = model.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    return linear


@pytest.fixture(scope="module")
def pristine() -> Flux:
    torch.manual_seed(0)
    return Flux(FluxConfig(double_blocks=2, single_blocks=2)).eval().requires_grad_(False)


@pytest.fixture
def model(pristine: Flux) -> Flux:
    return copy.deepcopy(pristine)


@pytest.fixture
def backbone(model: Flux) -> Backbone:
    return read_backbone(model)


@pytest.fixture
def call() -> Call:
    torch.manual_seed(1)
    x, context, y = (
        torch.randn(SAMPLES, 16, 8, 8),
        torch.randn(SAMPLES, 5, 64),
        torch.randn(SAMPLES, 64),
    )
    t = torch.tensor([0.9, 0.5, 0.1])

    def run(model: Callable[..., Tensor], rows: slice = slice(None)) -> Tensor:
        return model(x[rows], t[rows], context[rows], y[rows])

    return run


def random_gains(taps: int, samples: int) -> Tensor:
    return torch.empty(samples, taps).uniform_(
        -1.0, 2.0, generator=torch.Generator().manual_seed(2)
    )


def with_scaled_rows(model: Flux, backbone: Backbone, gains: Tensor) -> Flux:
    """A copy whose adaLN rows hold the gains [T]: the same thing by another road."""
    changed = copy.deepcopy(model)
    for tap, gain in zip(backbone.taps, gains, strict=True):
        linear = linear_at(changed, tap.module)
        width = linear.out_features // tap.chunks
        rows = slice(tap.chunk * width, (tap.chunk + 1) * width)
        linear.weight[rows] *= gain
        linear.bias[rows] *= gain
    return changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_gain_one_is_bit_exact(model: Flux, backbone: Backbone, dtype: torch.dtype) -> None:
    linear = linear_at(model, "double_blocks.0.img_mod.lin").to(dtype)
    x = torch.randn(SAMPLES, linear.in_features, dtype=dtype)
    plain = linear(x)
    with GainTaps(model, backbone).scaled(torch.ones(SAMPLES, len(backbone.taps))):
        scaled = linear(x)
    assert scaled.dtype == dtype
    assert torch.equal(scaled, plain)


def test_all_gains_one_are_bit_exact(model: Flux, backbone: Backbone, call: Call) -> None:
    plain = call(model)
    with GainTaps(model, backbone).scaled(torch.ones(1, len(backbone.taps))):
        assert torch.equal(call(model), plain)


def test_half_precision_rounds_once(model: Flux, backbone: Backbone) -> None:
    linear = linear_at(model, "single_blocks.0.modulation.lin").to(torch.bfloat16)
    x = torch.randn(2, linear.in_features, dtype=torch.bfloat16)
    gains = torch.full((1, len(backbone.taps)), 1.2345678)
    with GainTaps(model, backbone).scaled(gains):
        gate = linear(x).chunk(3, dim=-1)[2]
    expected = (linear(x).chunk(3, dim=-1)[2].float() * 1.2345678).to(torch.bfloat16)
    assert torch.equal(gate, expected)


def test_gains_equal_scaled_weight_rows(model: Flux, backbone: Backbone, call: Call) -> None:
    gains = random_gains(len(backbone.taps), 1)
    expected = call(with_scaled_rows(model, backbone, gains[0]))
    with GainTaps(model, backbone).scaled(gains):
        torch.testing.assert_close(call(model), expected, rtol=0, atol=1e-5)
    assert (call(model) - expected).abs().max() > 1e-2


def test_each_sample_has_its_own_gains(model: Flux, backbone: Backbone, call: Call) -> None:
    gains, taps = random_gains(len(backbone.taps), SAMPLES), GainTaps(model, backbone)
    with taps.scaled(gains):
        together = call(model)
    for i in range(SAMPLES):
        with taps.scaled(gains[i : i + 1]):
            alone = call(model, slice(i, i + 1))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_rows_that_repeat_the_samples(model: Flux, backbone: Backbone) -> None:
    linear = linear_at(model, "double_blocks.1.txt_mod.lin")
    x, gains = torch.randn(6, linear.in_features), random_gains(len(backbone.taps), 3)
    taps = GainTaps(model, backbone)
    with taps.scaled(gains):
        tiled = linear(x)
    with taps.scaled(gains.repeat(2, 1)):
        assert torch.equal(linear(x), tiled)


def test_rows_that_fit_no_gains(model: Flux, backbone: Backbone, call: Call) -> None:
    with (
        pytest.raises(ValueError, match="3 rows but there are gains for 2 samples: pass one row"),
        GainTaps(model, backbone).scaled(torch.ones(2, len(backbone.taps))),
    ):
        call(model)


def test_gains_of_another_shape(model: Flux, backbone: Backbone) -> None:
    taps = GainTaps(model, backbone)
    with pytest.raises(ValueError, match=r"has 10 taps: pass a tensor of shape \(samples, 10\)"):
        taps.scaled(torch.ones(10)).__enter__()


def test_nothing_is_left_behind(model: Flux, backbone: Backbone, call: Call) -> None:
    plain, before = call(model), {k: v.clone() for k, v in model.state_dict().items()}
    with GainTaps(model, backbone).scaled(random_gains(len(backbone.taps), 1)):
        call(model)
    assert torch.equal(call(model), plain)
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_restored_after_an_exception(model: Flux, backbone: Backbone, call: Call) -> None:
    plain, taps = call(model), GainTaps(model, backbone)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.single_blocks[0].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt), taps.scaled(random_gains(len(backbone.taps), 1)):
        call(model)
    handle.remove()
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert torch.equal(call(model), plain)
    with taps.scaled(torch.ones(1, len(backbone.taps))):
        assert torch.equal(call(model), plain)


def test_another_packs_forward_is_called_and_comes_back(model: Flux, backbone: Backbone) -> None:
    linear = linear_at(model, "double_blocks.0.img_mod.lin")
    taps, x = GainTaps(model, backbone), torch.randn(2, linear.in_features)
    plain = linear(x)

    def doubled(value: Tensor) -> Tensor:
        return 2.0 * nn.Linear.forward(linear, value)

    linear.forward = doubled  # type: ignore[method-assign, assignment]
    with taps.scaled(torch.zeros(1, len(backbone.taps))):
        chunks = linear(x).chunk(6, dim=-1)
    assert linear.__dict__["forward"] is doubled
    for k, chunk in enumerate(plain.chunk(6, dim=-1)):
        assert torch.equal(chunks[k], chunk * (0.0 if k in (2, 5) else 2.0))


@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_a_tensor_that_a_patched_class_returns_again_stays_as_it_is(
    model: Flux, backbone: Backbone, call: Call, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """As of a pack that keeps each timestep's modulation, for all linears at once."""
    gains, taps = random_gains(len(backbone.taps), samples), GainTaps(model, backbone)
    with taps.scaled(gains):
        expected = call(model)
    paths = dict.fromkeys(tap.module for tap in backbone.taps)
    tapped = {linear_at(model, path) for path in paths}
    kept: dict[nn.Linear, Tensor] = {}
    plain, original = {}, nn.Linear.forward

    def keeping(linear: nn.Linear, value: Tensor) -> Tensor:
        if linear not in kept:
            output = original(linear, value)
            if linear not in tapped:
                return output
            kept[linear], plain[linear] = output, output.clone()
        return kept[linear]

    monkeypatch.setattr(nn.Linear, "forward", keeping)
    for _ in range(2):
        with taps.scaled(gains):
            assert torch.equal(call(model), expected)
    assert kept.keys() == tapped
    assert all(torch.equal(kept[linear], plain[linear]) for linear in kept)


def test_two_taps_multiply(model: Flux, backbone: Backbone, call: Call) -> None:
    first, second = (
        torch.full((1, len(backbone.taps)), 0.5),
        random_gains(len(backbone.taps), SAMPLES),
    )
    with GainTaps(model, backbone).scaled(0.5 * second):
        expected = call(model)
    with GainTaps(model, backbone).scaled(first), GainTaps(model, backbone).scaled(second):
        torch.testing.assert_close(call(model), expected, rtol=0, atol=1e-5)
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_entering_twice_is_refused_and_leaves_the_first(
    model: Flux, backbone: Backbone, call: Call
) -> None:
    taps, gains = GainTaps(model, backbone), random_gains(len(backbone.taps), 1)
    with taps.scaled(gains):
        scaled = call(model)
        with pytest.raises(RuntimeError, match="leave that one first"):
            taps.scaled(gains).__enter__()
        assert torch.equal(call(model), scaled)


def test_a_copy_is_independent(model: Flux, backbone: Backbone, call: Call) -> None:
    gains, taps = random_gains(len(backbone.taps), 1), GainTaps(model, backbone)
    plain = call(model)
    with taps.scaled(gains):
        scaled = call(model)
    twin = copy.deepcopy(model)
    with taps.scaled(gains):
        assert torch.equal(call(twin), plain)
    with GainTaps(twin, backbone).scaled(gains):
        assert torch.equal(call(twin), scaled)
        assert torch.equal(call(model), plain)


def test_gradients_reach_the_gains(model: Flux, backbone: Backbone, call: Call) -> None:
    gains = torch.ones(1, len(backbone.taps), requires_grad=True)
    with GainTaps(model, backbone).scaled(gains):
        call(model).square().mean().backward()
    assert gains.grad is not None
    # The last double block's text MLP still feeds the single blocks, so no gain is idle.
    assert bool((gains.grad != 0).all())


def test_in_inference_mode(model: Flux, backbone: Backbone, call: Call) -> None:
    with torch.inference_mode():
        plain = call(model)
        with GainTaps(model, backbone).scaled(torch.ones(SAMPLES, len(backbone.taps))):
            assert torch.equal(call(model), plain)


@pytest.mark.slow
@pytest.mark.parametrize("plain_first", [True, False])
def test_compiled_model(model: Flux, backbone: Backbone, call: Call, plain_first: bool) -> None:
    compiled_graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        nonlocal compiled_graphs
        compiled_graphs += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=count)
    taps = GainTaps(model, backbone)
    plain = call(model)
    if plain_first:
        assert torch.equal(call(compiled), plain)
    for seed in range(3):
        gains = torch.rand(
            SAMPLES, len(backbone.taps), generator=torch.Generator().manual_seed(seed)
        )
        with taps.scaled(gains):
            expected = call(model)
            assert torch.equal(call(compiled), expected)
        assert torch.equal(call(compiled), plain)
    # Once plain and once scaled: new gains do not compile again.
    assert compiled_graphs == 2
