"""Every tap of ComfyUI's own Flux and SD3 classes does to its branch what its coefficient says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Tap, UnknownBackboneError, read_backbone
from comfyui_calibri.calibri.coefficients import GRANULARITIES, coefficient_space
from comfyui_calibri.calibri.taps import GainTaps

from .tiny_models import call, make_flux, make_sd3

MODELS: dict[str, Callable[[], nn.Module]] = {
    "flux": make_flux,
    "sd3": make_sd3,
    "sd3.5": lambda: make_sd3(dual=(0, 1)),
}
TAPS = {"flux": 10, "sd3": 10, "sd3.5": 12}

# The module whose output the gate multiplies, by the tap's adaLN linear and chunk.
BRANCHES = {
    ("img_mod.lin", 2): "img_attn.proj",
    ("img_mod.lin", 5): "img_mlp",
    ("txt_mod.lin", 2): "txt_attn.proj",
    ("txt_mod.lin", 5): "txt_mlp",
    ("modulation.lin", 2): "linear2",
    ("x_block.adaLN_modulation.1", 2): "x_block.attn.proj",
    ("x_block.adaLN_modulation.1", 5): "x_block.mlp",
    ("x_block.adaLN_modulation.1", 8): "x_block.attn2.proj",
    ("context_block.adaLN_modulation.1", 2): "context_block.attn.proj",
    ("context_block.adaLN_modulation.1", 5): "context_block.mlp",
}


@pytest.fixture(scope="module", params=MODELS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pristine(family: str) -> nn.Module:
    return MODELS[family]()


@pytest.fixture
def model(pristine: nn.Module) -> nn.Module:
    return copy.deepcopy(pristine)


@contextmanager
def branch_scaled(model: nn.Module, tap: Tap, scale: float) -> Iterator[None]:
    """The branch's contribution multiplied by `scale` where it is made, without the gate."""
    container, index, linear = tap.module.split(".", 2)
    branch = model.get_submodule(f"{container}.{index}.{BRANCHES[linear, tap.chunk]}")
    handle = branch.register_forward_hook(lambda _, __, output: output * scale)
    try:
        yield
    finally:
        handle.remove()


def gains_for(model: nn.Module, tap: Tap, gain: float) -> Tensor:
    taps = read_backbone(model).taps
    gains = torch.ones(1, len(taps))
    gains[0, taps.index(tap)] = gain
    return gains


def random_gains(model: nn.Module, samples: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    taps = len(read_backbone(model).taps)
    return torch.empty(samples, taps).uniform_(-1.0, 2.0, generator=generator)


def make_taps(model: nn.Module) -> GainTaps:
    return GainTaps(model, read_backbone(model))


def test_all_taps_are_found(model: nn.Module, family: str) -> None:
    assert len(read_backbone(model).taps) == TAPS[family]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_is_bit_exact(model: nn.Module, dtype: torch.dtype) -> None:
    model.to(dtype)
    plain, backbone = call(model), read_backbone(model)
    assert plain.isfinite().all()
    for samples in (1, 3):
        with make_taps(model).scaled(torch.ones(samples, len(backbone.taps))):
            assert torch.equal(call(model), plain)


def test_zero_is_the_branch_left_out(model: nn.Module) -> None:
    plain, taps = call(model), make_taps(model)
    for tap in read_backbone(model).taps:
        with branch_scaled(model, tap, 0.0):
            expected = call(model)
        with taps.scaled(gains_for(model, tap, 0.0)):
            assert torch.equal(call(model), expected), tap.name
        assert (expected - plain).abs().max() > 1e-3, tap.name


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.7])
def test_a_coefficient_multiplies_the_branch(model: nn.Module, scale: float) -> None:
    taps = make_taps(model)
    for tap in read_backbone(model).taps:
        with branch_scaled(model, tap, scale):
            expected = call(model)
        with taps.scaled(gains_for(model, tap, scale)):
            torch.testing.assert_close(call(model), expected, rtol=0, atol=2e-5, msg=tap.name)


def test_each_sample_has_its_own_gains(model: nn.Module) -> None:
    gains, taps = random_gains(model, 3), make_taps(model)
    with taps.scaled(gains):
        together = call(model)
    for i in range(3):
        with taps.scaled(gains[i : i + 1]):
            alone = call(model, slice(i, i + 1))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=2e-5)


def test_restored_after_an_exception(model: nn.Module) -> None:
    plain, taps = call(model), make_taps(model)

    def fail(*_: object) -> None:
        raise RuntimeError("interrupted")

    handle = model.get_submodule("final_layer").register_forward_pre_hook(fail)
    with (
        pytest.raises(RuntimeError, match="interrupted"),
        taps.scaled(random_gains(model, 1)),
    ):
        call(model)
    handle.remove()
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert torch.equal(call(model), plain)


def test_an_instances_forward_is_kept(model: nn.Module) -> None:
    """Another pack's replacement (an object patch, a bypassed LoRA) acts below the gains."""
    tap, taps = read_backbone(model).taps[0], make_taps(model)
    linear: Any = model.get_submodule(tap.module)
    original = linear.forward
    replacement = lambda *args, **kwargs: 0.5 * original(*args, **kwargs)  # noqa: E731
    linear.forward = replacement
    with branch_scaled(model, tap, 0.25):
        expected = call(model)
    with taps.scaled(gains_for(model, tap, 0.25)):
        torch.testing.assert_close(call(model), expected, rtol=0, atol=2e-5)
    assert linear.__dict__["forward"] is replacement


def test_a_deep_copy_has_taps_of_its_own(model: nn.Module) -> None:
    plain, gains, taps = call(model), random_gains(model, 1), make_taps(model)
    with taps.scaled(gains):
        scaled = call(model)
    twin = copy.deepcopy(model)
    with taps.scaled(gains):
        assert torch.equal(call(twin), plain)
    with make_taps(twin).scaled(gains):
        assert torch.equal(call(twin), scaled)


@pytest.mark.slow
@pytest.mark.parametrize("plain_first", [True, False])
def test_compiled_model(model: nn.Module, plain_first: bool) -> None:
    torch._dynamo.reset()
    taps, plain = make_taps(model), call(model)
    covered = torch.compile(model, backend="eager")
    assert isinstance(covered, nn.Module)
    if plain_first:
        assert torch.equal(call(covered), plain)
    for seed in range(2):
        gains = random_gains(model, 3, seed)
        with taps.scaled(gains):
            expected = call(model)
            assert torch.equal(call(covered), expected)
        assert torch.equal(call(covered), plain)


def full_size(name: str) -> nn.Module:
    if name == "FLUX.1":
        return make_flux(
            device="meta",
            hidden_size=3072,
            num_heads=24,
            axes_dim=[16, 56, 56],
            depth=19,
            depth_single_blocks=38,
        )
    if name == "SD3.5-medium":
        return make_sd3(device="meta", depth=24, dual=tuple(range(13)))
    return make_sd3(device="meta", depth=38)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("FLUX.1", (57, 76, 114)), ("SD3.5-medium", (24, 61, 107)), ("SD3.5-large", (38, 76, 150))],
)
def test_counts_at_full_size(name: str, counts: tuple[int, int, int]) -> None:
    backbone = read_backbone(full_size(name))
    found = tuple(len(coefficient_space(backbone, g).names) for g in GRANULARITIES)
    assert found == counts


def make_chroma() -> nn.Module:
    from comfy.ldm.chroma.model import Chroma

    from .tiny_models import FLUX, OPERATIONS

    config = {name: value for name, value in FLUX.items() if name != "guidance_embed"}
    approximator = {"in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1}
    return Chroma(operations=OPERATIONS, **config, **approximator)


def make_auraflow() -> nn.Module:
    from comfy.ldm.aura.mmdit import MMDiT

    from .tiny_models import OPERATIONS

    return MMDiT(dim=64, n_layers=2, n_double_layers=1, n_heads=1, operations=OPERATIONS)


LOOK_ALIKES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Flux.2": (
        lambda: make_flux(global_modulation=True, vec_in_dim=None, mlp_silu_act=True),
        "class Flux with double_blocks (2 DoubleStreamBlock)",
    ),
    "LongCat-Image": (lambda: make_flux(vec_in_dim=None), "class Flux with double_blocks"),
    "Chroma": (make_chroma, "class Chroma with double_blocks (2 DoubleStreamBlock)"),
    "AuraFlow": (make_auraflow, "class MMDiT with double_layers (1 MMDiTBlock)"),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_are_refused(name: str) -> None:
    make, message = LOOK_ALIKES[name]
    with pytest.raises(UnknownBackboneError) as caught:
        read_backbone(make())
    assert message in str(caught.value)
    assert "docs/backbones.md" in str(caught.value)
