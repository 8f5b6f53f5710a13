"""What QRM changes in each family is what its slots say, on tiny instances of the real classes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.taps import GainTaps
from comfyui_calibri.calibri.vectors import Vectors
from comfyui_calibri.qrm.layout import Layout, QRMError, Slot, read_layout

from .dits import CASES
from .dits.case import ALL, SAMPLES, DitCase
from .qrm_table import LINEARS, REFUSED

# The first of each family, and those whose modules differ.
DIFFERENT = ("SD3.5", "SD3 in diffusers", "SD3.5 in diffusers", "Qwen-Image-Edit-2511", "Wan HuMo")
_firsts = [*{case.family: case for case in reversed(CASES)}.values()]
_cases = [*_firsts, *(case for case in CASES if case.name in DIFFERENT)]


def with_cases(cases: list[DitCase]) -> pytest.MarkDecorator:
    """A test's `case`, once for each."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name, indirect=True)


with_linears = with_cases([case for case in _cases if case.family in LINEARS])

CHANGED = 1  # the sample that has vectors

MLP_WORDS = ("mlp", "ff", "feed_forward")


def layout_of(case: DitCase, model: nn.Module) -> Layout:
    if case.family in REFUSED:
        with pytest.raises(QRMError, match=REFUSED[case.family]):
            read_layout(model)
        pytest.skip("refused")
    return read_layout(model)


def random_vectors(layout: Layout) -> dict[str, Tensor]:
    """[SAMPLES, chunks, width] for each slot: 0 for samples but CHANGED, and chunks that stay."""
    seeded = torch.Generator().manual_seed(3)
    found = {}
    for slot in layout.slots:
        vector = torch.zeros(SAMPLES, slot.chunks, slot.width)
        for chunk in slot.changed:
            drawn = torch.randn(slot.width, generator=seeded)
            vector[CHANGED, chunk.position] = 0.2 * drawn
        found[slot.module] = vector
    return found


def check(found: Tensor, expected: Tensor, plain: Tensor) -> None:
    """One sample is `expected`, those beside it are plain to the bit."""
    torch.testing.assert_close(found[CHANGED], expected[CHANGED], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found[CHANGED], plain[CHANGED], rtol=1e-3, atol=1e-4)
    for sample in range(SAMPLES):
        assert sample == CHANGED or torch.equal(found[sample], plain[sample])


def linear_of(model: nn.Module, slot: Slot) -> nn.Linear:
    linear = model.get_submodule(slot.module)
    assert isinstance(linear, nn.Linear)
    return linear


@with_cases(_cases)
def test_gates_are_scaled_channel_by_channel(case: DitCase, model: nn.Module) -> None:
    """Against the branch's own module, or the rows of the linear, scaled by hand."""
    layout = layout_of(case, model)
    assert layout.linears == (case.family in LINEARS)
    if not layout.linears:
        with pytest.raises(QRMError, match=f"family {case.family} do not have"):
            layout.for_mode("add")
    layout = layout.for_mode("gates")
    taps, scale = GainTaps(model, read_backbone(model)), random_vectors(layout)
    plain = case.call(model, ALL)
    other = copy.deepcopy(model)
    for slot in layout.slots:
        factors = 1 + scale[slot.module][CHANGED]
        if slot.chunks == 1:
            _scale_output(other.get_submodule(slot.module), factors[0])
            continue
        linear = linear_of(other, slot)
        repeats = linear.out_features // factors.numel()
        with torch.no_grad():
            rows = factors.flatten().repeat(repeats)
            linear.weight *= rows[:, None]
            if linear.bias is not None:
                linear.bias *= rows
    expected = case.call(other, ALL)
    with taps.scaled(None, Vectors(scale=scale)):
        found = case.call(model, ALL)
    check(found, expected, plain)


def _scale_output(module: nn.Module, factors: Tensor) -> None:
    forward = module.forward
    module.forward = lambda *args, **kwargs: forward(*args, **kwargs) * factors  # type: ignore[method-assign]


@pytest.mark.oldest
@with_linears
def test_adding_is_another_bias(case: DitCase, model: nn.Module) -> None:
    layout = layout_of(case, model)
    taps, add = GainTaps(model, read_backbone(model)), random_vectors(layout)
    plain = case.call(model, ALL)
    other = copy.deepcopy(model)
    for slot in layout.slots:
        linear = linear_of(other, slot)
        assert linear.bias is not None or case.family == "auraflow"
        vector = add[slot.module][CHANGED].flatten()
        with torch.no_grad():
            vector = vector.repeat(linear.out_features // vector.numel())
            linear.bias = nn.Parameter(vector + (0 if linear.bias is None else linear.bias))
    expected = case.call(other, ALL)
    with taps.scaled(None, Vectors(add=add)):
        found = case.call(model, ALL)
    check(found, expected, plain)


@with_linears
def test_every_chunk_of_a_last_block_changes_the_prediction(
    case: DitCase, model: nn.Module
) -> None:
    """There, chunks of a stream that nothing reads any more are no part of the slot."""
    layout = layout_of(case, model)
    taps, plain = GainTaps(model, read_backbone(model)), case.call(model, ALL)
    for slot in layout.slots:
        if slot.index != layout.blocks[slot.kind] - 1:
            continue
        for chunk in slot.changed:
            vector = torch.zeros(1, slot.chunks, slot.width)
            vector[0, chunk.position] = 0.5
            with taps.scaled(None, Vectors(add={slot.module: vector})):
                assert not torch.equal(case.call(model, ALL), plain), (slot.module, chunk)


@with_linears
def test_shifts_and_scales_are_what_they_are_called(case: DitCase, model: nn.Module) -> None:
    """With a scale of -1 a branch sees its shift and nothing else: norm(x) · (1 - 1) + shift."""
    layout = layout_of(case, model)
    shifts: dict[tuple[str, str, str], Tensor] = {}
    for slot in layout.slots:
        linear = linear_of(model, slot)
        out = torch.zeros(slot.chunks, slot.width)
        for chunk in slot.changed:
            if chunk.role == "shift":
                drawn = torch.randn(slot.width)
                shifts[slot.module, chunk.stream, chunk.branch] = drawn
                out[chunk.position] = drawn
            if chunk.role == "scale":
                out[chunk.position] = -1.0
        with torch.no_grad():
            linear.weight.zero_()
            repeats = linear.out_features // out.numel()
            linear.bias = nn.Parameter(out.flatten().repeat(repeats))
    seen: dict[tuple[str, str, str], set[str]] = {key: set() for key in shifts}

    def look(path: str, inputs: tuple[Tensor, ...]) -> None:
        for key, shift in shifts.items():
            if inputs[0].numel() % len(shift) == 0:
                rows = inputs[0].reshape(-1, len(shift))
                # Some rows: image and text may lie in one sequence.
                if torch.isclose(rows, shift, atol=1e-6).all(dim=1).any():
                    seen[key].add(path)

    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path not in {slot.module for slot in layout.slots}:
            module.register_forward_pre_hook(lambda m, inputs, path=path: look(path, inputs))
    case.call(model, ALL)
    for (module_path, stream, branch), paths in seen.items():
        assert paths, (module_path, stream, branch)
        # The linears that see it lie in a block's attention or MLP; FLUX's single blocks have both
        # in one.
        named = {any(word in path for word in MLP_WORDS) for path in paths}
        assert branch == "fused" or named == {branch == "mlp"}, (module_path, branch, paths)
