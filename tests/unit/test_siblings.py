"""A preset of a model with other numbers of blocks starts a search: by name, else by depth."""

import numpy as np
import pytest

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import EnsembleSpaceError
from comfyui_calibri.calibri.presets import Guidance, Member, Preset, PresetError
from comfyui_calibri.calibri.siblings import carry_over, describe_start, is_sibling
from comfyui_calibri.calibri.warm_start import warm_start


def space(double=5, single=3, granularity="gate", attention2=(), family="flux"):
    taps = [
        Tap("double", i, branch, stream, "", 0, 1)
        for i in range(double)
        for branch in ("attention", "mlp")
        for stream in ("image", "text")
    ]
    taps += [Tap("double", i, "attention2", "image", "", 0, 1) for i in attention2]
    taps += [Tap("single", i, "fused", "joint", "", 0, 1) for i in range(single)]
    blocks = {"double": double, "single": single}
    return coefficient_space(Backbone(family, blocks, tuple(taps)), granularity)


def preset(of, value, members=1, **fields):
    """A preset whose coefficients are `value(name)`, each further member's a tenth larger."""
    made = [Member({n: value(n) + 0.1 * m for n in of.names}, 1 / members) for m in range(members)]
    blocks = of.backbone.blocks
    return Preset(of.backbone.family, blocks, of.granularity, tuple(made), **fields)


def by_depth(last):
    """1 at the first block, 1.5 at the last."""
    return lambda name: 1 + 0.5 * int(name.split(".")[1]) / last


def test_relative_depth_is_kept():
    small, large = space(double=3, single=3), space(double=9, single=3)
    found = carry_over(preset(small, by_depth(2)), large)
    assert (found.by_name, found.by_depth, found.absent) == (3, 36, 0)
    for name, value in large.named(found.rows[0]).items():
        kind, index = name.split(".")[:2]
        last = {"double": 8, "single": 2}[kind]
        assert value == pytest.approx(1 + 0.5 * int(index) / last)


def test_names_win_where_a_kind_has_as_many_blocks():
    small, large = space(double=3, single=4), space(double=3, single=7)
    random = np.random.default_rng(0)
    given = dict(zip(small.names, random.uniform(0.5, 1.5, len(small.names)), strict=True))
    found = large.named(carry_over(preset(small, given.get), large).rows[0])
    assert all(found[name] == given[name] for name in given if name.startswith("double"))


def test_a_branch_that_the_preset_does_not_know_begins_at_one():
    found = carry_over(preset(space(double=3), by_depth(2)), space(double=6, attention2=(0, 1)))
    assert found.absent == 2
    rows = space(double=6, attention2=(0, 1)).named(found.rows[0])
    assert rows["double.1.attention2.image"] == 1


def test_a_branch_of_some_blocks_takes_the_nearest_of_them():
    small = space(double=4, attention2=(0, 1))
    large = space(double=8, attention2=(0, 1, 2, 7))
    values = {"double.0.attention2.image": 0.5, "double.1.attention2.image": 1.5}
    found = large.named(carry_over(preset(small, lambda n: values.get(n, 1.0)), large).rows[0])
    assert found["double.0.attention2.image"] == 0.5
    assert found["double.1.attention2.image"] == pytest.approx(0.5 + 3 / 7)
    assert found["double.7.attention2.image"] == 1.5


def test_a_coarser_preset_starts_a_finer_search_of_a_sibling_and_not_the_other_way():
    coarse = preset(space(double=3, granularity="block"), by_depth(2))
    found = space(double=5).named(carry_over(coarse, space(double=5)).rows[0])
    assert found["double.2.mlp.text"] == pytest.approx(1.25)
    with pytest.raises(EnsembleSpaceError, match="set granularity to 'gate'"):
        carry_over(preset(space(double=3), by_depth(2)), space(double=5, granularity="layer"))


def test_members_and_guidance_are_carried_over_as_from_the_same_model():
    small, large = space(double=3), space(double=5)
    start = warm_start(preset(small, by_depth(2), members=2), large, 3, None)
    count = len(large.names)
    assert len(start) == 3 * count + 3
    np.testing.assert_allclose(start[count : 2 * count] - start[:count], 0.1, atol=1e-6)
    guided = warm_start(preset(small, by_depth(2)), large, 2, Guidance(4.0))
    assert guided[-2:].tolist() == [4.0, -3.0]


def test_one_kind_of_block_that_is_gone_is_no_error():
    small = space(double=3, single=0)
    odd = Preset("flux", {"double": 3}, "gate", preset(small, by_depth(2)).members)
    assert carry_over(odd, space(double=5, single=2)).absent == 2


def test_values_out_of_bounds_and_other_families_are_refused():
    with pytest.raises(PresetError, match="outside"):
        carry_over(preset(space(double=3), lambda name: 2.5), space())
    other = preset(space(family="sd3"), by_depth(4))
    assert not is_sibling(other, space(double=7))
    with pytest.raises(PresetError, match="found on this kind of model"):
        warm_start(other, space(double=7), 1, None)


def test_what_was_carried_over_is_one_sentence():
    small, large = space(double=3), space(double=5, attention2=(0,))
    told = describe_start(preset(small, by_depth(2), title="night"), large, "abc")
    assert told == (
        "It began at the preset 'night' of a sibling model, flux with 3 double and 3 single: "
        "of 24 coefficients 3 by name, 20 by relative depth, 1 unknown to it and left at 1."
    )
    same = preset(large, by_depth(4), fingerprint="xyz")
    assert "found on another model of this kind" in describe_start(same, large, "abc")
    assert describe_start(same, large, "xyz") == "It began at the preset of start_from."
