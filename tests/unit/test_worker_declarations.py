"""The server-side file: what it may say, and the line of each mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from comfyui_calibri.rewards.declarations import ServerDeclaration, WorkerDeclaration, parse
from comfyui_calibri.rewards.declared_file import DeclarationError, read_declared

WORKER = "rewards:\n  Mine:\n    kind: worker\n    licence: MIT\n    entry: mine:Mine\n"
SERVER = "rewards:\n  Far:\n    kind: http\n    licence: MIT\n    url: http://box:9000/score\n"


def read(folder: Path, text: str) -> WorkerDeclaration | ServerDeclaration:
    file = folder / "rewards.yaml"
    file.write_text(text, encoding="utf-8")
    (declared,) = read_declared(file).values()
    return parse(declared)


def test_versions_and_numbers_mean_what_is_written(tmp_path: Path) -> None:
    text = (
        f"{WORKER}    python: 3.10\n    packages: [torch==2.1, 'x @ file:///x']\n    size: 224\n"
        "    options: {device: cuda, half: no}\n    environment: {A_B: 1}\n    downloads: yes\n"
        "    typical: [-1.5, 1.5]\n    bounds: [-3, inf]\n    memory_gb: 17\n    version:\n"
    )
    found = read(tmp_path, text)
    assert isinstance(found, WorkerDeclaration)
    assert found.python == "3.10"
    assert found.packages == ("torch==2.1", "x @ file:///x")
    assert found.options == {"device": "cuda", "half": "no"}
    assert found.variables == {"A_B": "1"}
    assert found.card.range == "typically -1.5 to 1.5, never outside -3 to inf"
    assert (found.card.memory, found.card.size) == (17_000_000_000, 224)
    assert found.downloads is True
    assert found.version == ""


def test_what_is_not_written_is_safe(tmp_path: Path) -> None:
    worker, server = read(tmp_path, WORKER), read(tmp_path, SERVER)
    assert isinstance(worker, WorkerDeclaration)
    assert worker.downloads is False
    assert worker.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert isinstance(server, ServerDeclaration)
    assert server.token is None
    assert server.card.range == "typically 0 to 1"


def test_a_token_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(tmp_path, f"{SERVER}    token_variable: FAR_TOKEN\n")
    assert isinstance(found, ServerDeclaration)
    assert found.token == ""
    monkeypatch.setenv("FAR_TOKEN", "secret")
    assert found.token == "secret"
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "rewards:\n", "rewards: {}\n", "---\nrewards:\n  # none\n"]
)
def test_a_file_may_declare_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "rewards.yaml").write_text(text)
    assert read_declared(tmp_path / "rewards.yaml") == {}
    assert read_declared(tmp_path / "no.yaml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rewards:\n  Mine: {kind\n", r"rewards\.yaml, line 3 is no YAML: "),
        ("rewards:\n\tMine: 1\n", r"rewards\.yaml, line 2 is no YAML: found character '\\t'"),
        ("- a\n", r"rewards\.yaml, line 1: the file begins with 'rewards:'"),
        ("reward:\n  A: 1\n", r"line 1: the file begins with 'rewards:'"),
        ("rewards:\n  Mine: x\n", r"line 2: reward 'Mine' has no settings"),
        (f"{WORKER}  Mine:\n    kind: http\n", r"line 6: there is a second 'Mine'"),
        (f"{WORKER}    licence: MIT\n", r"line 6: there is a second 'licence'"),
        ("rewards:\n  M:\n    licence: MIT\n", r"line 2: reward 'M': needs 'kind: worker or http'"),
        ("rewards:\n  M:\n    kind: magic\n", r"line 3: reward 'M' kind: needs 'kind: worker or"),
        (f"{WORKER}    pakages: [a]\n", r"line 6: reward 'Mine' pakages: there is no such setting"),
        (f"{WORKER}    packages: numpy\n", r"line 6: reward 'Mine' packages: .*tuple"),
        (f"{WORKER}    packages: [a, -rx]\n", r"line 6: reward 'Mine' packages: are requirements"),
        (f"{WORKER}    size:\n      - 1\n", r"line 6: reward 'Mine' size: .*integer"),
        (f"{WORKER}    batch: 0\n", r"line 6: reward 'Mine' batch: .*greater than or equal to 1"),
        (f"{WORKER}    options:\n      a: 1\n      b: [1]\n", r"line 8: reward 'Mine' options b"),
        (f"{WORKER}    environment: {{A-B: 1}}\n", r"line 6: reward 'Mine' environment A-B"),
        (f"{WORKER}    typical: [1]\n", r"line 6: reward 'Mine' typical.* required"),
        (f"{WORKER}    python: current\n    packages: [a]\n", r"line 7: .*'python: current'"),
        (WORKER.replace("mine:Mine", "mine"), r"line 5: reward 'Mine' entry: is 'module:Class'"),
        (WORKER.replace("mine:Mine", "../m.py:M"), r"line 5: .* is 'module:Class'"),
        (WORKER.replace("mine:Mine", "/m.py:M"), r"line 5: .* is 'module:Class'"),
        (WORKER.replace("mine:Mine", r"C:\m.py:M"), r"line 5: .* is 'module:Class'"),
        (WORKER.replace("    licence: MIT\n", ""), r"line 2: reward 'Mine': 'licence' is missing"),
        (SERVER.replace("http://", "file://"), r"line 5: reward 'Far' url: is an address such as"),
        (SERVER.replace("box", "me:secret@box"), r"line 5: reward 'Far' url: holds a password"),
        (f"{SERVER}    token_variable: a b\n", r"line 6: reward 'Far' token_variable"),
        (f"{SERVER}    entry: a:B\n", r"line 6: reward 'Far' entry: there is no such setting"),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        read(tmp_path, text)


def test_a_file_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "rewards.yaml").write_bytes("rewards:\n  Größe:\n".encode("latin-1"))
    with pytest.raises(DeclarationError, match=r"rewards\.yaml cannot be read .* UTF-8"):
        read_declared(tmp_path / "rewards.yaml")
