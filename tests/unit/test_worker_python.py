"""What the worker's side asks of its Python: 3.9, and no package at all."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from comfyui_calibri.rewards import worker_main
from comfyui_calibri.rewards.worker import Scorer, Worker

from .test_worker import greys, quiet, without_numpy


def test_the_workers_side_is_for_python_3_9_without_any_package() -> None:
    source = Path(worker_main.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    roots = {name.split(".")[0] for name in imported}
    assert roots - {"numpy", "fcntl", "msvcrt"} <= sys.stdlib_module_names


@pytest.mark.parametrize(("numpy", "kind"), [(True, "ndarray"), (False, "memoryview")])
def test_images_are_an_array_where_there_is_numpy(tmp_path: Path, numpy: bool, kind: str) -> None:
    (tmp_path / "plain.py").write_text(
        "class Plain:\n"
        "    def score(self, images, prompts):\n"
        "        print(type(images).__name__, images.shape)\n"
        "        return [images[i, 1, 2, 0] + len(p) for i, p in enumerate(prompts)]\n"
    )
    variables = {} if numpy else without_numpy(tmp_path / "packages")
    scorer = Scorer("plain.py:Plain", tmp_path, tmp_path / "log", {}, variables)
    worker = Worker("Plain", scorer, lambda _: [sys.executable])
    assert worker.score(greys(3, 200), ["a", "bb"], quiet) == [4.0, 202.0]
    assert f"{kind} (2, 4, 6, 3)" in (tmp_path / "log").read_text()
    worker.close()
