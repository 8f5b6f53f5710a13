"""LoRA by hooks, and blocks that are computed twice: the same numbers as without them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from comfyui_calibri.training.checkpointing import checkpointed
from comfyui_calibri.training.lora import Lora, linear_layers


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4)),
        nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)),
    )


def stirred(lora: Lora) -> dict[str, Tensor]:
    with torch.no_grad():
        for parameter in lora.parameters.values():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return {name: value.detach() for name, value in lora.parameters.items()}


def test_linear_layers_are_found_in_the_blocks_alone() -> None:
    assert linear_layers(model(), ["0", "1"]) == ["0.0", "0.2", "1.1"]
    assert linear_layers(model(), ["1"]) == ["1.1"]


def test_it_begins_without_effect_and_leaves_nothing_behind() -> None:
    net, x = model(), torch.randn(5, 4)
    plain = net(x)
    lora = Lora(net, linear_layers(net, ["0"]), rank=2, alpha=1.0, seed=0)
    with lora.acting():
        assert torch.equal(net(x), plain)
    stirred(lora)
    with lora.acting():
        assert not torch.allclose(net(x), plain)
    assert torch.equal(net(x), plain)


def test_its_file_says_what_it_did() -> None:
    net, x = model(), torch.randn(5, 4)
    lora = Lora(net, ["0.0", "0.2"], rank=2, alpha=3.0, seed=0)
    held = lora.tensors(stirred(lora), "diffusion_model.")
    with lora.acting():
        expected = net(x)
    assert set(held) == {
        f"diffusion_model.{path}.{name}"
        for path in ("0.0", "0.2")
        for name in ("lora_up.weight", "lora_down.weight", "alpha")
    }
    with torch.no_grad():
        for path in ("0.0", "0.2"):
            up, down, alpha = (
                held[f"diffusion_model.{path}.{name}"]
                for name in ("lora_up.weight", "lora_down.weight", "alpha")
            )
            net.get_submodule(path).get_parameter("weight").add_(alpha / 2 * up @ down)
    assert torch.allclose(net(x), expected, atol=1e-6)


def test_gradients_reach_the_adapters_and_not_the_model() -> None:
    net = model().requires_grad_(False)
    lora = Lora(net, ["0.0"], rank=2, alpha=1.0, seed=0)
    stirred(lora)
    with lora.acting():
        net(torch.randn(2, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lora.parameters.values())
    assert all(p.grad is None for p in net.parameters())


def test_checkpointed_blocks_give_the_same_gradients_and_are_themselves_again() -> None:
    net, x = model(), torch.randn(3, 4)
    net(x).square().sum().backward()
    expected = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    seen: list[Tensor] = []
    net[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    with checkpointed(list(net)):
        (net(x).square().sum() + seen[0].sum() * 0).backward()
    assert len(seen) == 1
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient)
    assert not any("forward" in vars(block) for block in net)
