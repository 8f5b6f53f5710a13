"""QRM files: what is saved is read again, and what a stranger may send is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from comfyui_calibri.demo.model import Flux, FluxConfig
from comfyui_calibri.qrm.config import QRMConfig
from comfyui_calibri.qrm.files import METADATA_KEY, QRMFile, check_qrm, load_qrm, save_qrm
from comfyui_calibri.qrm.layout import QRMError
from comfyui_calibri.qrm.module import QRM


@pytest.fixture(scope="module")
def model() -> Flux:
    return Flux(FluxConfig(double_blocks=1, single_blocks=1))


@pytest.fixture(scope="module")
def file(model: Flux) -> QRMFile:
    torch.manual_seed(0)
    module = QRM(QRMConfig.for_backbone(model, tokens=64, pooled=64))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return QRMFile(
        module,
        title="A test",
        base_model="demo",
        fingerprint="abc",
        licence="Apache-2.0",
        created="2026-11-21",
        training={"steps": 3, "losses": [0.5, 0.25], "reward": {"name": "demo"}},
    )


@pytest.fixture
def path(file: QRMFile, tmp_path: Path) -> Path:
    save_qrm(tmp_path / "a.safetensors", file)
    return tmp_path / "a.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """The file again, with its metadata and tensors changed."""
    with safetensors.safe_open(path, framework="pt") as opened:
        header = json.loads(opened.metadata()[METADATA_KEY])
    state = safetensors.torch.load_file(path)
    change(header, state)
    other = path.with_name("other.safetensors")
    safetensors.torch.save_file(state, other, metadata={METADATA_KEY: json.dumps(header)})
    return other


def test_what_is_saved_is_read_again(file: QRMFile, path: Path, model: Flux) -> None:
    found = load_qrm(path)
    assert found.module.config == file.module.config
    assert replace(found, module=file.module) == file
    assert found.family == "flux"
    saved = file.module.state_dict()
    for name, value in found.module.state_dict().items():
        assert torch.equal(value, saved[name])
    check_qrm(found, model)
    level, tokens, pooled = torch.rand(2), torch.randn(2, 3, 64), torch.randn(2, 64)
    again, before = (
        found.module(level, tokens, None, pooled),
        file.module(level, tokens, None, pooled),
    )
    for name, vector in before.vectors.add.items():
        assert torch.equal(again.vectors.add[name], vector)
    assert not any(parameter.requires_grad for parameter in found.module.parameters())


def test_nothing_is_overwritten(file: QRMFile, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        save_qrm(path, file)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_another_model_is_refused(path: Path) -> None:
    found = load_qrm(path)
    with pytest.raises(QRMError, match="for flux with 1 double and 1 single but the model is flux"):
        check_qrm(found, Flux(FluxConfig(double_blocks=2, single_blocks=1)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h, s: h.update(schema=2), "schema"),
        (lambda h, s: h.update(more=1), "more: Extra inputs"),
        (lambda h, s: h.pop("licence"), "licence: Field required"),
        (lambda h, s: h.update(title="x" * 1001), "title: String should have at most 1000"),
        (lambda h, s: h.update(training={"x": "y" * 2**20}), "training record is too long"),
        (lambda h, s: h["config"].update(width=2**40), "config.width"),
        (lambda h, s: h["config"].update(width=True), "config.width"),
        (lambda h, s: h["config"].update(heads=3), "no multiple of its 3 heads"),
        (lambda h, s: h["config"].update(rank=4000), "where its header wants"),
        (lambda h, s: h["config"].update(mode="other"), "config.mode"),
        (lambda h, s: h["config"]["layout"].update(slots=[]), "slots"),
        (
            lambda h, s: h["config"]["layout"]["slots"][0]["changed"].reverse(),
            "are not in order",
        ),
        (lambda h, s: s.pop("blocks"), "parameter blocks is lacking"),
        (lambda h, s: s.update(more=torch.zeros(1)), "where its header wants none"),
        (lambda h, s: s.update(blocks=s["blocks"].half()), "is F16, not F32"),
        (lambda h, s: s["blocks"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_strangers_file_is_refused(
    path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None], says: str
) -> None:
    with pytest.raises(QRMError, match=says) as caught:
        load_qrm(rewrite(path, change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(QRMError, match="cannot be opened"):
        load_qrm(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(QRMError, match=r"truncated or no \.safetensors file"):
        load_qrm(cut)
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, plain)
    with pytest.raises(QRMError, match="it is no QRM"):
        load_qrm(plain)
    deep = tmp_path / "deep.safetensors"
    nested = "[" * 100_000 + "]" * 100_000
    safetensors.torch.save_file({"x": torch.zeros(1)}, deep, metadata={METADATA_KEY: nested})
    with pytest.raises(QRMError, match="cannot be used"):
        load_qrm(deep)


def test_what_could_not_be_read_is_not_saved(file: QRMFile, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    for wrong, says in (
        (replace(file, training={"x": object()}), "training record is no JSON"),
        (replace(file, training={"x": float("nan")}), "training record is no JSON"),
        (replace(file, title="x" * 1001), "is not valid: title"),
    ):
        with pytest.raises(QRMError, match=says):
            save_qrm(path, wrong)
    assert not path.exists()
