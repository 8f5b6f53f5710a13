"""Which taps are found in which module, and that look-alikes are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from comfyui_calibri.calibri import backbones
from comfyui_calibri.calibri.backbones import UnknownBackboneError, read_backbone
from comfyui_calibri.calibri.families.entry import (
    INTERLEAVED,
    BlockKind,
    Family,
    Modulation,
    Output,
)
from comfyui_calibri.demo.model import Flux, FluxConfig

WIDTH = 8


def linear(chunks: int) -> nn.Linear:
    return nn.Linear(WIDTH, chunks * WIDTH)


def tree(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def adaln(chunks: int) -> nn.Module:
    return tree(adaLN_modulation=nn.Sequential(nn.SiLU(), linear(chunks)))


class MMDiT(nn.Module):
    """The modules of ComfyUI's class that matter: the gates of SD3 and SD3.5."""

    def __init__(self, depth: int, dual: int = 0) -> None:
        super().__init__()
        self.x_embedder = tree(proj=nn.Conv2d(4, WIDTH, 2))
        self.joint_blocks = nn.ModuleList(
            tree(
                x_block=adaln(9 if i < dual else 6),
                context_block=adaln(2 if i == depth - 1 else 6),
            )
            for i in range(depth)
        )


class OpenAISignatureMMDITWrapper(MMDiT):
    """What ComfyUI puts around the class."""


def test_flux_gates_in_block_order() -> None:
    backbone = read_backbone(Flux(FluxConfig(double_blocks=2, single_blocks=1)))
    assert backbone.family == "flux"
    assert backbone.blocks == {"double": 2, "single": 1}
    assert [(tap.name, tap.module, tap.chunk, tap.chunks) for tap in backbone.taps] == [
        ("double.0.attention.image", "double_blocks.0.img_mod.lin", 2, 6),
        ("double.0.mlp.image", "double_blocks.0.img_mod.lin", 5, 6),
        ("double.0.attention.text", "double_blocks.0.txt_mod.lin", 2, 6),
        ("double.0.mlp.text", "double_blocks.0.txt_mod.lin", 5, 6),
        ("double.1.attention.image", "double_blocks.1.img_mod.lin", 2, 6),
        ("double.1.mlp.image", "double_blocks.1.img_mod.lin", 5, 6),
        ("double.1.attention.text", "double_blocks.1.txt_mod.lin", 2, 6),
        ("double.1.mlp.text", "double_blocks.1.txt_mod.lin", 5, 6),
        ("single.0.fused.joint", "single_blocks.0.modulation.lin", 2, 3),
    ]


def test_sd3_second_attention_and_last_text_block() -> None:
    backbone = read_backbone(OpenAISignatureMMDITWrapper(depth=2, dual=1))
    assert backbone.family == "sd3"
    assert backbone.blocks == {"joint": 2}
    image, text = "x_block.adaLN_modulation.1", "context_block.adaLN_modulation.1"
    assert [(tap.name, tap.module, tap.chunk, tap.chunks) for tap in backbone.taps] == [
        ("joint.0.attention.image", f"joint_blocks.0.{image}", 2, 9),
        ("joint.0.mlp.image", f"joint_blocks.0.{image}", 5, 9),
        ("joint.0.attention2.image", f"joint_blocks.0.{image}", 8, 9),
        ("joint.0.attention.text", f"joint_blocks.0.{text}", 2, 6),
        ("joint.0.mlp.text", f"joint_blocks.0.{text}", 5, 6),
        ("joint.1.attention.image", f"joint_blocks.1.{image}", 2, 6),
        ("joint.1.mlp.image", f"joint_blocks.1.{image}", 5, 6),
    ]


def without(path: str) -> Flux:
    model = Flux(FluxConfig(double_blocks=1, single_blocks=1))
    parent, _, name = path.rpartition(".")
    delattr(model.get_submodule(parent), name)
    return model


def hunyuan_video() -> nn.Module:
    model = Flux(FluxConfig(double_blocks=1, single_blocks=1))
    model.__class__ = type("HunyuanVideo", (nn.Module,), {})
    return model


def sd3_without_shifts() -> nn.Module:
    model = MMDiT(depth=2)
    model.get_submodule("joint_blocks.0").add_module("x_block", adaln(4))
    return model


LOOK_ALIKES: dict[str, Callable[[], nn.Module]] = {
    "Flux.2: global modulation": lambda: without("double_blocks.0.img_mod"),
    "Chroma: vectors from an approximator": lambda: without("single_blocks.0.modulation"),
    "HunyuanVideo: another class": hunyuan_video,
    "SD3 with another adaLN layout": sd3_without_shifts,
    "no single blocks": lambda: Flux(FluxConfig(double_blocks=1, single_blocks=0)),
    "no blocks": lambda: linear(1),
}


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
def test_look_alikes_are_refused(look_alike: str) -> None:
    with pytest.raises(UnknownBackboneError):
        read_backbone(LOOK_ALIKES[look_alike]())


def test_refusal_names_class_containers_and_document() -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        read_backbone(without("double_blocks.0.img_mod"))
    message = str(caught.value)
    assert "class Flux with double_blocks (1 DoubleStreamBlock)" in message
    assert "single_blocks (1 SingleStreamBlock)" in message
    assert "docs/backbones.md" in message


@pytest.mark.parametrize(
    ("branches", "problem"),
    [
        (
            (
                Modulation("linear", "image", {6: ((2, "attention"),)}),
                Modulation("linear", "text", {6: ((5, "mlp"),)}, rows=INTERLEAVED),
            ),
            "blocks.0.linear that rows is 'tiled' for block.0.attention.image and 'interleaved'",
        ),
        (
            (
                Modulation("linear", "image", {6: ((2, "attention"),)}),
                Output("linear", "mlp", "image"),
            ),
            "that chunks is 6 for block.0.attention.image and 1 for block.0.mlp.image: give all",
        ),
        (
            (
                Modulation("linear", "image", {6: ((2, "attention"),)}),
                Modulation("linear", "text", {6: ((2, "attention"),)}),
            ),
            "taps chunk 2 of blocks.0.linear for both",
        ),
    ],
)
def test_an_entry_that_contradicts_itself_is_named(
    monkeypatch: pytest.MonkeyPatch, branches: tuple[Modulation | Output, ...], problem: str
) -> None:
    entry = Family("strange", ("Module",), (BlockKind("block", "blocks", branches),))
    monkeypatch.setattr(backbones, "FAMILIES", (entry,))
    model = tree(blocks=nn.ModuleList([tree(linear=linear(6))]))
    with pytest.raises(ValueError, match="The entry of strange") as found:
        read_backbone(model)
    assert problem in str(found.value)
