"""The SiT-shaped model: its sizes are the published ones, and a trainer can train it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comfyui_calibri.ahpa.hidden import HiddenReader, read_blocks
from comfyui_calibri.ahpa.sit import SIZES, SiT, SiTConfig
from comfyui_calibri.ahpa.sit_file import is_sit, load_reference, read_config, reference_names

SMALL = SiTConfig(hidden=32, depth=4, heads=2, side=8, classes=5)


@pytest.mark.parametrize(("name", "millions"), [("B/2", 130), ("L/2", 458), ("XL/2", 675)])
def test_sizes_are_those_of_the_paper(name: str, millions: int) -> None:
    with torch.device("meta"):
        model = SiT(SIZES[name])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_it_begins_as_nothing_and_learns_from_there() -> None:
    torch.manual_seed(0)
    model = SiT(SMALL)
    x, t, y = torch.randn(3, 4, 8, 8), torch.rand(3), torch.tensor([0, 4, 5])
    assert torch.equal(model(x, t, y), torch.zeros_like(x))
    (model(x, t, y) - x).square().mean().backward()
    gradient = model.final_layer.linear.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_token_k_is_patch_k() -> None:
    torch.manual_seed(0)
    model = SiT(SMALL)
    nn.init.normal_(model.final_layer.linear.weight)  # the gates stay 0
    x, t, y = torch.randn(1, 4, 8, 8), torch.ones(1), torch.tensor([1])
    plain = model(x, t, y)

    def change(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, 6] += torch.randn(32)
        return output

    model.blocks[1].register_forward_hook(change)
    moved = (model(x, t, y) - plain).abs().sum(dim=(0, 1)) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(moved, expected)


def test_its_blocks_can_be_read_and_a_pooled_text_conditions_it() -> None:
    model = SiT(SiTConfig(hidden=32, depth=4, heads=2, side=8, classes=0, pooled=6))
    blocks = read_blocks(model)
    assert [block.name for block in blocks] == [f"block.{i}" for i in range(4)]
    with HiddenReader(model, blocks[2], 16) as reader:
        model(torch.randn(2, 4, 8, 8), torch.rand(2), torch.randn(2, 6))
        assert reader.tokens.shape == (2, 16, 32)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="choose multiples"):
        SiTConfig(hidden=30, heads=4)
    with pytest.raises(ValueError, match="class or a pooled text"):
        SiTConfig(pooled=3)


def random_sit() -> SiT:
    torch.manual_seed(0)
    model = SiT(SMALL)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def test_a_file_in_the_references_names_tells_its_sizes_and_fills_a_model() -> None:
    model = random_sit()
    tensors = reference_names(model, dict(model.named_parameters()))
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    assert is_sit(shapes)
    assert read_config(shapes, heads=2) == SMALL
    with pytest.raises(ValueError, match="give --heads"):
        read_config(shapes)
    other = SiT(SMALL)
    load_reference(other, {"projectors.0.weight": torch.ones(1), **tensors})
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(ValueError, match="no SiT of these sizes"):
        load_reference(other, {n: v for n, v in tensors.items() if "blocks.3" not in n})
    with pytest.raises(ValueError, match="not SiT's sines"):
        load_reference(other, {**tensors, "pos_embed": torch.zeros(1, 16, 32)})


def test_of_a_model_that_learnt_a_variance_the_velocity_is_taken() -> None:
    model = random_sit()
    tensors = reference_names(model, dict(model.named_parameters()))
    # Its channels come first in each cell of a patch, then as many of the variance.
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        velocity = tensors[name].unflatten(0, (4, 4))
        tensors[name] = torch.cat([velocity, torch.randn_like(velocity)], dim=1).flatten(0, 1)
    other = SiT(SMALL)
    load_reference(other, tensors)
    x, t, y = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([0, 3])
    with torch.no_grad():
        assert torch.equal(other(x, t, y), model(x, t, y))
