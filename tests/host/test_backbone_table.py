"""docs/backbones.md counts what the models have.

On the newest supported ComfyUI alone, whose classes the page lists: v0.3.64 lacks many of them.

After a change of a family: `WRITE_DOCS=1 python -m pytest tests/host/test_backbone_table.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .backbone_table import cases_table, coefficient_table
from .qrm_table import qrm_table

PAGE = "docs/backbones.md"
TABLES = {"coefficients": coefficient_table, "tested": cases_table, "qrm": qrm_table}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_up_to_date(name: str, root: Path) -> None:
    text = (root / PAGE).read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: generated -->\n", f"\n<!-- {name}: end -->"
    before, found = text.split(begin)
    table, after = found.split(end)
    counted = TABLES[name]()
    if os.environ.get("WRITE_DOCS"):
        (root / PAGE).write_text(f"{before}{begin}{counted}{end}{after}", encoding="utf-8")
        return
    assert table == counted, f"run WRITE_DOCS=1 pytest {Path(__file__).name}"
