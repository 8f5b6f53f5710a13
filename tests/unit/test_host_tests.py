"""Which host tests also run on the oldest supported ComfyUI: all that can."""

from __future__ import annotations

import ast
from pathlib import Path

# Each says in its first lines why it cannot.
NEWEST_ONLY = {
    "test_backbone_table.py",
    "test_backbones_with_caches.py",
    "test_calibrate_on_ray.py",
    "test_compatibility_attention.py",
    "test_compatibility_copies.py",
    "test_compatibility_easycache.py",
    "test_qrm_sizes.py",
    "test_workflow_ahpa.py",
    "test_workflow_blocks.py",
    "test_workflow_qrm.py",
    "test_workflow_rewards_and_members.py",
    "test_workflow_score_and_pick.py",
    "test_workflows_of_big_models.py",
}


def test_each_file_runs_on_the_oldest_comfyui_or_says_why_not(root: Path) -> None:
    unmarked = {}
    for file in (root / "tests" / "host").glob("test_*.py"):
        module = ast.parse(file.read_text(encoding="utf-8"))
        if not is_marked(module):
            unmarked[file.name] = ast.get_docstring(module) or ""
    assert set(unmarked) == NEWEST_ONLY
    for name, words in unmarked.items():
        assert "v0.3.64" in words, f"{name} does not say why it leaves the oldest ComfyUI out"


def is_marked(module: ast.Module) -> bool:
    """Whether a module, or a test in it, has the mark `oldest`."""
    marks: list[ast.expr] = []
    for statement in module.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
            marks.append(statement.value)
        elif isinstance(statement, ast.FunctionDef):
            marks += statement.decorator_list
    return any("pytest.mark.oldest" in ast.unparse(mark) for mark in marks)
