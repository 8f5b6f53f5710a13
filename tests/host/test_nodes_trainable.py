"""Gradients through every family's real class, from weights made as a node's loader makes them."""

from __future__ import annotations

from contextlib import closing

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from comfyui_calibri.calibri.vectors import Vectors
from comfyui_calibri.nodes.gain_layer import GainLayer
from comfyui_calibri.nodes.patching import apply_gains, backbone_of
from comfyui_calibri.nodes.trainable import (
    WITHOUT_GRADIENTS,
    NotTrainableError,
    TrainableModel,
    TrainableModule,
    copied,
    training_mode,
)
from comfyui_calibri.qrm.layout import QRMError, Slot, read_layout

from .dits import CASES
from .dits.case import ALL, DitCase
from .tiny_patchers import make_model

pytestmark = pytest.mark.oldest

TRAINABLE = [case for case in CASES if case.family not in WITHOUT_GRADIENTS]
# Later calls of these see what earlier ones kept, and no gradient goes back there.
STATEFUL = ("Wan frame by frame",)


def vectors_of(layout_slots: tuple[Slot, ...], mode: str, scale: float, seed: int) -> Vectors:
    """Random vectors of every slot, for one of QRM's modes."""
    generator = torch.Generator().manual_seed(seed)
    made = {
        slot.module: scale * torch.randn(1, slot.chunks, slot.width, generator=generator)
        for slot in layout_slots
    }
    return Vectors(add=made) if mode == "add" else Vectors(scale=made)


def parts(vectors: Vectors) -> list[Tensor]:
    return [*vectors.add.values(), *vectors.scale.values()]


def make_in_a_node(case: DitCase) -> nn.Module:
    """A private copy of a model whose weights are inference tensors, as a node's loader's are."""
    with torch.inference_mode():
        model = case.make()
        for part in model.modules():
            for name, weight in list(part._parameters.items()):
                if weight is not None:
                    part._parameters[name] = nn.Parameter(weight.clone(), requires_grad=False)
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = buffer.clone()
        assert next(model.parameters()).is_inference()
    return model


@pytest.mark.parametrize("case", TRAINABLE, ids=lambda case: case.name)
def test_gradients_reach_the_vectors_and_are_right(case: DitCase, newest: bool) -> None:
    if case.name in STATEFUL:
        pytest.skip("not trained so")
    try:
        model = make_in_a_node(case)
    except ImportError:
        assert not newest
        pytest.skip("this ComfyUI has no such class")
    try:
        layout = read_layout(model)
    except QRMError:
        pytest.skip("QRM does not act on this family")
    mode = layout.modes[0]
    with training_mode():
        trainable = TrainableModule(copied(model))
        at = vectors_of(layout.slots, mode, 0.1, 1)
        direction = vectors_of(layout.slots, mode, 1.0, 2)
        for part in parts(at):
            part.requires_grad_(True)

        def output(vectors: Vectors) -> Tensor:
            with trainable.changed(vectors):
                found = case.call(trainable.module, ALL).double()
            weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
            return (found * weight.double()).sum()

        output(at).backward()
        slope = sum(
            float((part.grad * along).sum())
            for part, along in zip(parts(at), parts(direction), strict=True)
            if part.grad is not None
        )
        # Small steps drown in float32's rounding where the slope is slight, long ones bend.
        with torch.no_grad():
            slopes = [
                float(output(at + direction * step) - output(at + direction * -step)) / (2 * step)
                for step in (1e-2, 3e-2)
            ]
    assert slope != 0
    assert pytest.approx(slope, rel=0.03) in slopes


@pytest.mark.parametrize("family", sorted(WITHOUT_GRADIENTS))
def test_families_without_gradients_are_refused(family: str) -> None:
    case = next(case for case in CASES if case.family == family)
    try:
        model = make_in_a_node(case)
    except ImportError:
        pytest.skip("this ComfyUI has no such class")
    with training_mode(), pytest.raises(NotTrainableError, match=f"family {family} cannot"):
        TrainableModule(copied(model))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_copy_of_a_model_predicts_as_it_does_and_leaves_it_alone(checkpointing: bool) -> None:
    with torch.inference_mode():
        patcher = make_model("flux")
        before = {k: v.clone() for k, v in patcher.model.state_dict().items()}
        x, sigma = torch.randn(2, 16, 8, 8), torch.tensor([0.9, 0.4])
        conds = {"c_crossattn": torch.randn(2, 5, 64), "y": torch.randn(2, 64)}
        conds["guidance"] = torch.full((2,), 3.5)
        plain = patcher.model.apply_model(x, sigma, **conds)
    with training_mode():
        trainable = TrainableModel(patcher, checkpointing)
        x = x.clone().requires_grad_(True)
        found = trainable(x, sigma.clone(), conds, None)
        found.sum().backward()
    torch.testing.assert_close(found.detach(), plain.clone(), rtol=1e-4, atol=1e-4)
    assert x.grad is not None
    assert bool(x.grad.any())
    after = patcher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("from_its_file", [False, True])
def test_the_copy_stays_where_it_is_while_comfyui_makes_room(
    from_its_file: bool, newest: bool
) -> None:
    def loaded(disable_dynamic: bool = False) -> ModelPatcher:
        made = make_model("flux")
        made.offload_device = torch.device("meta")  # what is moved there is lost
        return made

    with torch.inference_mode():
        patcher = loaded()
        if from_its_file and newest:  # v0.3.64 has no copies from files
            patcher.cached_patcher_init = (loaded, ())
        lora = torch.randn_like(patcher.model.diffusion_model.img_in.weight)
        patcher.add_patches({"diffusion_model.img_in.weight": ("diff", (lora,))}, 1.0)
    x, sigma = torch.randn(2, 16, 8, 8), torch.tensor([0.9, 0.4])
    conds = {"c_crossattn": torch.randn(2, 5, 64), "y": torch.randn(2, 64)}
    conds["guidance"] = torch.full((2,), 3.5)

    def gradient() -> tuple[Tensor, Tensor]:
        start = x.clone().requires_grad_(True)
        found = trainable(start, sigma, conds, None)
        comfy.model_management.unload_all_models()  # as a reward may, before the backward pass
        found.square().sum().backward()
        assert start.grad is not None
        return found.detach(), start.grad

    with training_mode(), closing(TrainableModel(patcher)) as trainable:
        before, after = gradient(), gradient()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert {p.device.type for p in trainable.model.parameters()} == {"meta"}  # given back


def test_a_model_with_a_preset_is_refused() -> None:
    patcher = make_model("flux")
    layer = GainLayer(torch.ones(1, len(backbone_of(patcher).taps)))
    with training_mode(), pytest.raises(NotTrainableError, match="before it"):
        TrainableModel(apply_gains(patcher, layer))
