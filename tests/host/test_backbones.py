"""Every tap of every family does to its branch what its coefficient says.

Held against `dits/residual_additions.py`, which sees a block's `stream + contribution` as PyTorch
computes it and knows nothing of taps.
"""

from __future__ import annotations

import copy
from collections.abc import Set
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import Backbone, read_backbone
from comfyui_calibri.calibri.families import FAMILIES

from .dits.case import ALL, SAMPLES, DitCase
from .dits.fixtures import made
from .dits.gains import gain_on, make_taps, random_gains
from .dits.residual_additions import Addition, Watch, watching

pytestmark = pytest.mark.oldest

SCALES = (-1.0, 0.3, 1.7)


def blocks_of(model: nn.Module, backbone: Backbone) -> dict[str, nn.Module]:
    kinds = [kind for family in FAMILIES if family.name == backbone.family for kind in family.kinds]
    blocks = {}
    for kind in kinds:
        try:
            container = model.get_submodule(kind.container)
        except AttributeError:
            continue  # an optional kind, or diffusers' name for it
        for name, block in container.named_children():
            blocks[f"{kind.container}.{name}"] = block
    return blocks


def note(case: DitCase, model: nn.Module, backbone: Backbone) -> tuple[list[Addition], Tensor]:
    with watch(case, blocks_of(model, backbone)) as watched:
        output = case.call(model, ALL)
    return watched.found, output


def watch(
    case: DitCase, blocks: dict[str, nn.Module], skip: Set[tuple[str, int]] = frozenset()
) -> AbstractContextManager[Watch]:
    return watching(
        blocks,
        skip,
        restarts=case.restarts,
        inner=case.inner_additions,
        between=case.additions_between_blocks,
    )


def ulps(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """The largest distance in units in the last place of `dtype` at the expected values."""
    info = torch.finfo(dtype)
    size = expected.abs().clamp(min=info.tiny)
    unit = torch.exp2(torch.floor(torch.log2(size))) * info.eps
    return float(((actual.double() - expected) / unit).abs().max())


def test_the_family_is_found(case: DitCase, model: nn.Module) -> None:
    backbone = read_backbone(model)
    assert backbone.family == case.family
    assert len({tap.name for tap in backbone.taps}) == len(backbone.taps)


@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_one_is_bit_exact(case: DitCase, model: nn.Module, samples: int) -> None:
    if samples > 1 and case.one_gain_for_all:
        pytest.skip(case.one_gain_for_all)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model.to(dtype)
        plain = case.call(model, ALL)
        assert plain.isfinite().all(), dtype
        with make_taps(model).scaled(torch.ones(samples, len(read_backbone(model).taps))):
            assert torch.equal(case.call(model, ALL), plain), dtype


def test_each_tap_is_one_addition_and_each_addition_has_its_tap(
    case: DitCase,
    model: nn.Module,
) -> None:
    """Coefficient 0 is the block without that addition; additions without a tap do nothing."""
    backbone, taps = read_backbone(model), make_taps(model)
    additions, plain = note(case, model, backbone)
    blocks, scaled = blocks_of(model, backbone), set[tuple[str, int]]()
    for tap in backbone.taps:
        with taps.scaled(gain_on(backbone, tap, 0.0)):
            without, output = note(case, model, backbone)
        changed = first_difference(additions, without)
        if tap.block in case.idle:
            assert changed is None
            assert torch.equal(output, plain), f"{tap.name} has an effect"
            continue
        assert changed is not None, f"{tap.name} changes no addition"
        # More than one where a call runs the block again, on other frames or another stream, or
        # where the block adds the branch part by part.
        own = {
            (now.block, now.index)
            for now, before in zip(without, additions, strict=True)
            if before.contribution.any() and not now.contribution.any()
        }
        at = (additions[changed].block, additions[changed].index)
        left = [a.contribution for a in without if (a.block, a.index) in own | {at}]
        assert not any(rest.any() for rest in left), f"{tap.name} leaves something of its branch"
        assert all(path == tap.module[: len(path)] for path, _ in own), tap.name
        assert own.isdisjoint(scaled), f"{tap.name} scales what another tap scales"
        scaled |= own
        with watch(case, blocks, own):
            skipped = case.call(model, ALL)
        assert torch.equal(output, skipped), tap.name
        assert not torch.equal(output, plain), f"{tap.name} has no effect"
    for at in {(addition.block, addition.index) for addition in additions} - scaled:
        with watch(case, blocks, {at}):
            skipped = case.call(model, ALL)
        assert torch.equal(skipped, plain), f"{at[0]} adds a branch without a tap"


def first_difference(one: list[Addition], other: list[Addition]) -> int | None:
    assert [(a.block, a.index) for a in one] == [(a.block, a.index) for a in other]
    for position, (a, b) in enumerate(zip(one, other, strict=True)):
        if not torch.equal(a.contribution, b.contribution):
            return position
    return None


def test_a_coefficient_multiplies_the_contribution(case: DitCase, model: nn.Module) -> None:
    """To 2 ulp of the model's type."""
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        backbone, taps = read_backbone(model), make_taps(model)
        additions, _ = note(case, model, backbone)
        for tap, scale in zip(backbone.taps, cycle(SCALES), strict=False):
            if tap.block in case.idle:
                continue
            with taps.scaled(gain_on(backbone, tap, scale)):
                scaled, _ = note(case, model, backbone)
            changed = first_difference(additions, scaled)
            assert changed is not None, tap.name
            expected = additions[changed].exact * float(torch.tensor(scale))
            assert ulps(scaled[changed].contribution, expected, dtype) <= 2.0, (tap.name, dtype)


def test_each_sample_has_its_own_gains(case: DitCase, model: nn.Module) -> None:
    gains, taps = random_gains(model, SAMPLES), make_taps(model)
    if case.one_gain_for_all:
        with pytest.raises(ValueError, match="gains"), taps.scaled(gains):
            case.call(model, ALL)
        return
    with taps.scaled(gains):
        together = case.call(model, ALL)
    for i in range(SAMPLES):
        with taps.scaled(gains[i : i + 1]):
            alone = case.call(model, slice(i, i + 1))
        largest = float(alone.abs().max())
        difference = float((together[i : i + 1] - alone).abs().max())
        assert difference <= 2e-5 * max(1.0, largest), i


def test_nothing_stays_behind(case: DitCase, model: nn.Module) -> None:
    """After a call, after one that failed, and in a deep copy made within one."""
    plain, taps, gains = case.call(model, ALL), make_taps(model), random_gains(model, 1)
    with taps.scaled(gains):
        calibrated = case.call(model, ALL)
        twin = copy.deepcopy(made(case))
    assert not torch.equal(calibrated, plain)
    with pytest.raises(RuntimeError, match="interrupted"), taps.scaled(gains):
        raise RuntimeError("interrupted")
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert torch.equal(case.call(model, ALL), plain)
    with taps.scaled(gains):
        assert torch.equal(case.call(twin, ALL), plain)
    with make_taps(twin).scaled(gains):
        assert torch.equal(case.call(twin, ALL), calibrated)


def test_an_instances_forward_is_kept(case: DitCase, model: nn.Module) -> None:
    """Another pack's replacement (an object patch, a bypassed LoRA) acts below the gains."""
    backbone, taps = read_backbone(model), make_taps(model)
    tap = backbone.taps[0]
    module: Any = model.get_submodule(tap.module)
    original = module.forward
    kept: list[Tensor] = []

    def replacement(*args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = original(*args, **kwargs)
        kept.append(output)
        return output

    module.forward = replacement
    with taps.scaled(gain_on(backbone, tap, 0.0)):
        case.call(model, ALL)
    assert module.__dict__["forward"] is replacement
    assert all(output.any() for output in kept), "what another pack keeps has been written into"
