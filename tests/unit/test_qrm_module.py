"""The Quality Representation Module on the demo's Flux: at first nothing, then trainable."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.demo.model import Flux, FluxConfig
from comfyui_calibri.qrm.config import QRMConfig, parameters
from comfyui_calibri.qrm.layout import MODES, Chunk, QRMError, read_layout
from comfyui_calibri.qrm.module import QRM, Adjustment, level_embedding

SAMPLES = 3


@pytest.fixture(scope="module")
def model() -> Flux:
    torch.manual_seed(0)
    return Flux(FluxConfig(double_blocks=2, single_blocks=1)).eval().requires_grad_(False)


def made(model: Flux, mode: str = "add", size: float = 0.0) -> QRM:
    """A module for `model`; with a size, one that has learned something."""
    torch.manual_seed(1)
    module = QRM(QRMConfig.for_backbone(model, tokens=64, pooled=64, mode=mode))
    for name, parameter in module.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=size)
    return module


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    seeded = torch.Generator().manual_seed(2)
    level = torch.tensor([0.9, 0.5, 0.1])
    tokens = torch.randn(SAMPLES, 5, 64, generator=seeded)
    pooled = torch.randn(SAMPLES, 64, generator=seeded)
    mask = torch.ones(SAMPLES, 5)
    return level, tokens, mask, pooled


def changes(found: Adjustment) -> Tensor:
    """All vectors of each sample in one row."""
    both = {**found.vectors.add, **found.vectors.scale}
    return torch.cat([both[path].flatten(1) for path in sorted(both)], dim=1)


def test_the_layout_names_every_chunk(model: Flux) -> None:
    layout = read_layout(model)
    assert layout.linears
    assert len(layout.slots) == 2 * 2 + 1
    first = layout.slots[0]
    assert (first.module, first.chunks, first.width) == ("double_blocks.0.img_mod.lin", 6, 128)
    assert first.changed[0] == Chunk(0, "image", "attention", "shift")
    assert [c.role for c in first.changed] == ["shift", "scale", "gate"] * 2
    assert [c.branch for c in first.changed] == ["attention"] * 3 + ["mlp"] * 3
    gates = layout.for_mode("gates")
    assert {c.role for slot in gates.slots for c in slot.changed} == {"gate"}
    with pytest.raises(QRMError, match="no mode 'other': choose one of add, scale, gates"):
        layout.for_mode("other")


@pytest.mark.parametrize("mode", MODES)
def test_untrained_it_is_the_plain_model(model: Flux, mode: str) -> None:
    level, tokens, mask, pooled = inputs()
    x = torch.randn(SAMPLES, 16, 8, 8)
    plain = model(x, level, tokens, pooled)
    found = made(model, mode)(level, tokens, mask, pooled)
    assert found.quality is not None
    assert found.quality.shape == (SAMPLES,)
    taps = GainTaps(model, read_backbone(model))
    with taps.scaled(None, found.vectors):
        assert torch.equal(model(x, level, tokens, pooled), plain)
    trained = made(model, mode, size=0.1)(level, tokens, mask, pooled)
    with taps.scaled(None, trained.vectors):
        assert (model(x, level, tokens, pooled) - plain).abs().max() > 1e-3


def test_only_gates_are_changed_in_their_mode(model: Flux) -> None:
    found = made(model, "gates", size=0.1)(*inputs()).vectors
    assert not found.add
    for vector in found.scale.values():
        for chunk in range(vector.shape[1]):
            assert bool(vector[:, chunk].any()) == (chunk % 3 == 2)


def test_each_input_matters_and_each_sample_is_alone(model: Flux) -> None:
    module, (level, tokens, mask, pooled) = made(model, size=0.1), inputs()
    together = changes(module(level, tokens, mask, pooled))
    assert not torch.allclose(together, changes(module(level.flip(0), tokens, mask, pooled)))
    assert not torch.allclose(together, changes(module(level, tokens.flip(0), mask, pooled)))
    assert not torch.allclose(together, changes(module(level, tokens, mask, pooled.flip(0))))
    for row in range(SAMPLES):
        one = slice(row, row + 1)
        alone = changes(module(level[one], tokens[one], mask[one], pooled[one]))
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["add", "gates"])
def test_it_says_the_same_with_and_without_gradients(model: Flux, mode: str) -> None:
    module = made(model, mode, size=0.1)
    trained = changes(module(*inputs()))
    assert trained.requires_grad
    with torch.no_grad():
        assert torch.equal(changes(module(*inputs())), trained)


def test_padding_is_not_seen(model: Flux) -> None:
    module, (level, tokens, mask, pooled) = made(model, size=0.1), inputs()
    padded = torch.cat([tokens, torch.full((SAMPLES, 2, 64), 7.0).cumsum(-1)], dim=1)
    shown = torch.cat([mask, torch.zeros(SAMPLES, 2)], dim=1)
    expected = changes(module(level, tokens, mask, pooled))
    found = changes(module(level, padded, shown, pooled))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    nothing = changes(module(level, tokens, torch.zeros_like(mask), pooled))
    assert nothing.isfinite().all()


def test_inputs_that_are_missing_are_not_seen(model: Flux) -> None:
    module, (level, *_) = made(model, size=0.1), inputs()
    assert changes(module(level)).isfinite().all()


def test_every_parameter_is_trained(model: Flux) -> None:
    module, (level, tokens, mask, pooled) = made(model, size=0.1), inputs()
    x = torch.randn(SAMPLES, 16, 8, 8)
    found = module(level, tokens, mask, pooled)
    with GainTaps(model, read_backbone(model)).scaled(None, found.vectors):
        loss = model(x, level, tokens, pooled).square().mean() + found.quality.square().mean()
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_prompts_of_another_width_are_refused(model: Flux) -> None:
    module, (level, tokens, mask, pooled) = made(model), inputs()
    with pytest.raises(ValueError, match="tokens are 32 wide but the QRM was made for 64"):
        module(level, tokens[..., :32], mask, pooled)
    with pytest.raises(ValueError, match="pooled embedding are 32 wide"):
        module(level, tokens, mask, pooled[..., :32])


@pytest.mark.parametrize("mode", MODES)
def test_it_is_one_per_cent_of_the_demo(mode: str) -> None:
    demo = Flux()
    config = QRMConfig.for_backbone(demo, tokens=64, pooled=64, mode=mode)
    assert config.width == 32
    assert parameters(config) <= 0.01 * sum(p.numel() for p in demo.parameters())


def test_noise_levels_are_told_apart() -> None:
    codes = level_embedding(torch.linspace(0, 1, 101))
    distances = torch.cdist(codes, codes) + 10 * torch.eye(101)
    assert distances.min() > 0.1
