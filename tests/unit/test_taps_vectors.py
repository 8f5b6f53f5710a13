"""QRM's vectors through the taps: exact, per sample and channel, together with gains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Backbone, read_backbone
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.calibri.vectors import Vectors
from comfyui_calibri.demo.model import Flux, FluxConfig

SAMPLES = 3
LINEAR = "double_blocks.0.img_mod.lin"


@pytest.fixture
def model() -> Flux:
    torch.manual_seed(0)
    return Flux(FluxConfig(double_blocks=1, single_blocks=1)).eval().requires_grad_(False)


@pytest.fixture
def backbone(model: Flux) -> Backbone:
    return read_backbone(model)


def called(model: nn.Module, rows: slice = slice(None)) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 16, 8, 8, generator=seeded)
    context = torch.randn(SAMPLES, 5, 64, generator=seeded)
    y = torch.randn(SAMPLES, 64, generator=seeded)
    t = torch.tensor([0.9, 0.5, 0.1])
    out: Tensor = model(x[rows], t[rows], context[rows], y[rows])
    return out


def vectors(model: Flux, samples: int, kind: str, size: float = 0.3) -> Vectors:
    """One for each linear that computes gates, [samples, chunks, 128]."""
    seeded = torch.Generator().manual_seed(2)
    made = {
        tap.module: size * torch.randn(samples, tap.chunks, 128, generator=seeded)
        for tap in read_backbone(model).taps
    }
    return Vectors(add=made) if kind == "add" else Vectors(scale=made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["add", "scale"])
def test_zero_changes_no_bit(
    model: Flux, backbone: Backbone, kind: str, dtype: torch.dtype
) -> None:
    linear = model.get_submodule(LINEAR).to(dtype)
    x = torch.randn(SAMPLES, 128, dtype=dtype)
    for gains in (None, torch.ones(SAMPLES, len(backbone.taps))):
        with GainTaps(model, backbone).scaled(gains, vectors(model, SAMPLES, kind, size=0.0)):
            changed = linear(x)
        assert changed.dtype == dtype
        assert torch.equal(changed, linear(x))


def test_adding_is_another_bias(model: Flux, backbone: Backbone) -> None:
    added = vectors(model, 1, "add")
    other = copy.deepcopy(model)
    for path, vector in added.add.items():
        linear = other.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        linear.bias += vector.flatten()
    with GainTaps(model, backbone).scaled(None, added):
        torch.testing.assert_close(called(model), called(other), rtol=0, atol=1e-5)
    assert (called(model) - called(other)).abs().max() > 1e-2


@pytest.mark.parametrize("samples", [1, SAMPLES])
@pytest.mark.parametrize("kind", ["add", "scale"])
def test_gains_act_on_what_vectors_have_changed(
    model: Flux, backbone: Backbone, kind: str, samples: int
) -> None:
    linear = model.get_submodule(LINEAR)
    x = torch.randn(SAMPLES, 128)
    gains = torch.ones(SAMPLES, len(backbone.taps))
    gains[:, 0] = torch.tensor([0.5, -1.0, 2.0])  # the image's attention, chunk 2
    changes = vectors(model, samples, kind)
    plain = linear(x).view(SAMPLES, 6, 128)
    adds = kind == "add"
    expected = plain + changes.add[LINEAR] if adds else plain * (1 + changes.scale[LINEAR])
    expected[:, 2] *= gains[:, :1]
    with GainTaps(model, backbone).scaled(gains, changes):
        changed = linear(x).view(SAMPLES, 6, 128)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["add", "scale"])
def test_each_sample_has_its_own(model: Flux, backbone: Backbone, kind: str) -> None:
    taps, every = GainTaps(model, backbone), vectors(model, SAMPLES, kind)
    with taps.scaled(None, every):
        together = called(model)
    for row in range(SAMPLES):
        with taps.scaled(None, every.rows(torch.tensor([row]))):
            alone = called(model, slice(row, row + 1))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["add", "scale"])
def test_rows_that_repeat_the_samples(model: Flux, backbone: Backbone, kind: str) -> None:
    linear, taps = model.get_submodule(LINEAR), GainTaps(model, backbone)
    x, few = torch.randn(4, 128), vectors(model, 2, kind)
    with taps.scaled(None, few):
        tiled = linear(x)
    with taps.scaled(None, few.rows(torch.tensor([0, 1, 0, 1]))):
        assert torch.equal(linear(x), tiled)


@pytest.mark.parametrize("kind", ["add", "scale"])
def test_gradients_reach_the_vectors(model: Flux, backbone: Backbone, kind: str) -> None:
    changes = vectors(model, SAMPLES, kind)
    leaf = (changes.add or changes.scale)[LINEAR].requires_grad_()
    with GainTaps(model, backbone).scaled(None, changes):
        loss = called(model).square().mean()
    loss.backward()
    assert leaf.grad is not None
    assert (leaf.grad.abs().amax(dim=(0, 2)) > 0).all()


def test_a_linear_without_a_tap(model: Flux, backbone: Backbone) -> None:
    """SD3's last text block has such a one: a shift and a scale, no gate."""
    taps = GainTaps(model, backbone)
    path = "final_layer.adaLN_modulation.1"
    plain = called(model)
    with taps.scaled(None, Vectors(add={path: torch.ones(1, 2, 128)})):
        assert not torch.allclose(called(model), plain)
    assert torch.equal(called(model), plain)
    assert taps.still_fit()


def test_vectors_that_do_not_fit(model: Flux, backbone: Backbone) -> None:
    taps = GainTaps(model, backbone)
    for wrong in (
        Vectors(add={LINEAR: torch.zeros(1, 3, 128)}),
        Vectors(add={LINEAR: torch.zeros(1, 768)}),
        Vectors(scale={"double_blocks.9.img_mod.lin": torch.zeros(1, 6, 128)}),
    ):
        with pytest.raises(ValueError, match="do not fit this model"):
            taps.scaled(None, wrong).__enter__()
    assert "forward" not in model.get_submodule(LINEAR).__dict__


def test_compiled_code_sees_other_values_without_compiling_again(
    model: Flux, backbone: Backbone
) -> None:
    compilations = 0

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        nonlocal compilations
        compilations += 1
        return graph

    torch._dynamo.reset()
    taps, linear = GainTaps(model, backbone), model.get_submodule(LINEAR)
    compiled = torch.compile(linear, backend=counting)
    x = torch.randn(SAMPLES, 128)
    for size in (0.1, 0.2, 0.3):
        changes = vectors(model, SAMPLES, "add", size)
        with taps.scaled(None, changes):
            expected, found = linear(x), compiled(x)
        torch.testing.assert_close(found, expected)
    assert compilations == 1


def test_vectors_add_up_and_are_scaled() -> None:
    one = Vectors(add={"a": torch.ones(1, 1, 2)}, scale={"b": torch.ones(1, 1, 2)})
    two = Vectors(add={"a": torch.ones(1, 1, 2)}, scale={"c": torch.ones(1, 1, 2)})
    both = (one + two) * 0.5
    assert both.paths == ["b", "c", "a"]
    assert both.add["a"].tolist() == [[[1.0, 1.0]]]
    assert both.scale["c"].tolist() == [[[0.5, 0.5]]]
