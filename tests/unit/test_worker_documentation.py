"""What docs/rewards.md shows of external rewards is what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from comfyui_calibri.rewards.declarations import ServerDeclaration, WorkerDeclaration, parse
from comfyui_calibri.rewards.declared_file import Declared, read_declared
from comfyui_calibri.rewards.external_reward import external_reward


@pytest.fixture(scope="module")
def document(root: Path) -> str:
    return (root / "docs" / "rewards.md").read_text(encoding="utf-8")


@pytest.fixture
def files(document: str, tmp_path: Path) -> Path:
    """A folder with the files that the document shows, under the names it gives them."""
    for kind, name, text in re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", document, re.DOTALL):
        assert name.endswith(".py" if kind == "python" else ".yaml")
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def declared_in(folder: Path) -> list[Declared]:
    return [one for file in folder.glob("*.yaml") for one in read_declared(file).values()]


def test_the_own_scorer_runs_and_is_no_longer_than_promised(files: Path) -> None:
    assert len((files / "colourful.py").read_text().strip().splitlines()) <= 20
    (declared,) = read_declared(files / "rewards.yaml").values()
    declaration = parse(declared)
    assert isinstance(declaration, WorkerDeclaration)
    # The environment is test_worker_environment.py's; here, the same code without one.
    here = declaration.model_copy(update={"python": "current", "packages": ()})
    reward = external_reward(declared.name, here, files, lambda *_: None)
    grey, colours = torch.full((8, 8, 3), 0.5), torch.rand(8, 8, 3)
    scores = reward.score(torch.stack([grey, colours]), ["", ""])
    assert scores[0] == 0.0
    assert scores[1] > 10.0
    assert declaration.card.typical == (10.0, 90.0)


def test_every_declaration_is_valid_and_has_its_script(files: Path) -> None:
    names = []
    for declared in declared_in(files):
        declaration = parse(declared)
        names.append(declared.name)
        if isinstance(declaration, WorkerDeclaration):
            assert declaration.script is not None
            source = (files / declaration.script).read_text()
            names_of_classes = re.findall(r"^class (\w+)", source, re.MULTILINE)
            assert declaration.entry.rpartition(":")[2] in names_of_classes
            assert "    def score(self, images, prompts):" in source
            compile(source, declaration.script, "exec")
    assert {"HPSv3", "Q-Align", "ImageReward (original)", "Big box"} <= set(names)


def test_every_setting_is_explained(document: str) -> None:
    named = set(re.findall(r"`(\w+)`", document))
    settings = {*WorkerDeclaration.model_fields, *ServerDeclaration.model_fields}
    assert settings - {"kind"} <= named
