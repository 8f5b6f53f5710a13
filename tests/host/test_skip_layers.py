"""Skip Layer Guidance reaches the very blocks that a suggestion names, in ComfyUI's classes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.skip_layers import LAYERS_OF

from .dits import CASES
from .dits.case import ALL, DitCase
from .dits.fixtures import made_or_skipped

pytestmark = pytest.mark.oldest

ONE_OF_EACH = {case.family: case for case in reversed(CASES) if case.family in LAYERS_OF}


class Asked(dict[Any, Any]):
    """Block replacements that replace nothing and remember which were looked for."""

    def __init__(self) -> None:
        self.keys_asked: set[tuple[str, int]] = set()

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, tuple)
        self.keys_asked.add(key)
        return False


def test_there_is_a_case_for_every_family() -> None:
    assert ONE_OF_EACH.keys() == LAYERS_OF.keys()


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=lambda case: case.name)
def test_blocks_have_their_number_in_comfyuis_replacements(case: DitCase, newest: bool) -> None:
    model = made_or_skipped(case, newest)
    asked = Asked()
    given = model.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        options["transformer_options"] = {
            **(options.get("transformer_options") or {}),
            "patches_replace": {"dit": asked},
        }
        return given(*arguments, **options)

    model.forward = forward
    try:
        case.call(model, ALL)
    finally:
        nn.Module.__delattr__(model, "forward")
    blocks = read_backbone(model).blocks
    kinds = LAYERS_OF[case.family]
    wanted = {(f"{kinds[k]}_block", i) for k in kinds if k in blocks for i in range(blocks[k])}
    assert wanted
    assert asked.keys_asked == wanted
