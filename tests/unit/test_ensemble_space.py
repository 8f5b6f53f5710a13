"""Members as one vector, and where a search that goes on from a preset begins."""

import numpy as np
import pytest

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.coefficients import CoefficientError, coefficient_space
from comfyui_calibri.calibri.ensemble_space import EnsembleSpaceError, ensemble_space
from comfyui_calibri.calibri.preset_metadata import Guidance, Member, Preset
from comfyui_calibri.calibri.presets import PresetError
from comfyui_calibri.calibri.warm_start import warm_start

from .exact_run import COEFFICIENTS as GATE

BLOCK = coefficient_space(GATE.backbone, "block")
N = len(GATE.names)


def preset(weights=(1.0,), space=GATE, guidance=None, seed=0) -> Preset:
    """Random members of these weights."""
    random = np.random.default_rng(seed)
    rows = random.uniform(0.5, 1.5, (len(weights), len(space.names)))
    members = tuple(Member(space.named(row), w) for row, w in zip(rows, weights, strict=True))
    backbone = space.backbone
    return Preset(backbone.family, backbone.blocks, space.granularity, members, guidance)


def test_one_member_is_searched_as_ever():
    space = ensemble_space(GATE)
    assert space.names == GATE.names
    for ours, theirs in ((space.lower, GATE.lower), (space.upper, GATE.upper)):
        assert (ours == theirs).all()
    assert (space.identity == 1).all()
    assert (space.start == 1).all()
    assert (space.deviation == 1).all()
    vectors = np.random.default_rng(0).uniform(0, 2, (3, N))
    gains, weights = space.expand(vectors)
    assert weights is None
    assert (gains[:, 0] == GATE.expand(vectors)).all()
    assert space.preset_members(vectors[1]) == (Member(GATE.named(vectors[1])),)
    assert space.record().keys() == {"family", "granularity", "coefficients"}


def test_members_have_names_bounds_and_values_of_their_own():
    space = ensemble_space(BLOCK, 3)
    count = len(BLOCK.names)
    assert len(space.names) == len(set(space.names)) == 3 * count + 3
    assert space.names[0] == "member1.double.0"
    assert space.names[count] == "member2.double.0"
    assert space.names[-1] == "member3.weight"
    assert (space.lower[: 3 * count] == -1).all()
    assert (space.upper[: 3 * count] == 2).all()
    assert (space.lower[-3:] == -10).all()
    assert (space.upper[-3:] == 10).all()
    vectors = np.arange(2.0 * len(space.names)).reshape(2, -1)
    gains, weights = space.expand(vectors)
    assert gains.shape == (2, 3, len(GATE.backbone.taps))
    assert (weights == vectors[:, -3:]).all()
    for member in range(3):
        rows = vectors[:, member * count : (member + 1) * count]
        assert (gains[:, member] == BLOCK.expand(rows)).all()
    second = space.preset_members(vectors[0])[1]
    assert second == Member(BLOCK.named(vectors[0, count : 2 * count]), vectors[0, -2])


def test_vectors_of_another_length_are_refused():
    with pytest.raises(CoefficientError, match="shape"):
        ensemble_space(GATE).expand(np.ones((2, N + 1)))


def test_identity_and_start_are_the_plain_model():
    ensemble = ensemble_space(GATE, 4)
    assert ensemble.identity.tolist() == [1.0] * (4 * N) + [1, 0, 0, 0]
    assert ensemble.start.tolist() == [1.0] * (4 * N) + [0.25] * 4
    guided = ensemble_space(GATE, 2, Guidance(7.0))
    assert guided.identity.tolist() == guided.start.tolist() == [1.0] * (2 * N) + [7, -6]
    assert not ensemble.warm
    assert not guided.warm


def test_weights_vary_less_than_coefficients():
    ensemble, guided = ensemble_space(GATE, 3), ensemble_space(GATE, 2, Guidance(4.0))
    assert (ensemble.deviation[:-3] == 1).all()
    assert (guided.deviation[:-2] == 0.5).all()
    np.testing.assert_allclose(ensemble.deviation[-3:], N**-0.5)
    np.testing.assert_allclose(guided.deviation[-2:], N**-0.5)


def test_a_run_is_known_by_its_members_guidance_and_start():
    start = warm_start(preset(), GATE, 2, None)
    records = [
        ensemble_space(GATE, *rest).record()
        for rest in (
            (),
            (2,),
            (3,),
            (2, Guidance(3.0)),
            (2, Guidance(4.0)),
            (2, None, start),
            (2, None, warm_start(preset(seed=1), GATE, 2, None)),
        )
    ]
    assert all(records.count(record) == 1 for record in records)
    assert ensemble_space(GATE, 2, None, start.copy()).record() == records[5]


@pytest.mark.parametrize("members", [1, 2])
def test_starting_from_a_preset_that_changes_nothing_is_starting_at_the_plain_model(members):
    plain = Preset("flux", GATE.backbone.blocks, "gate", (Member(GATE.named(GATE.identity)),))
    space = ensemble_space(GATE, members, None, warm_start(plain, GATE, members, None))
    assert not space.warm
    assert space.record() == ensemble_space(GATE, members).record()


@pytest.mark.parametrize(
    ("weights", "members", "expected"),
    [
        ([1.0], 1, [1.0]),
        ([1.0], 2, [0.5, 0.5]),
        ([0.9], 3, [0.3, 0.3, 0.3]),
        ([0.25, -0.75], 2, [0.25, -0.75]),
        ([0.25, -0.75], 4, [0.25, -0.25, -0.25, -0.25]),
    ],
)
def test_a_warm_start_is_the_presets_own_model(weights, members, expected):
    given = preset(weights)
    vector = warm_start(given, GATE, members, None)
    space = ensemble_space(GATE, members, None, vector)
    found = space.preset_members(vector)
    assert [member.weight for member in found] == pytest.approx(expected)
    # The sum of any function of the coefficients, a prediction's for one.
    for name in GATE.names:
        assert sum(m.weight * m.coefficients[name] ** 3 for m in found) == pytest.approx(
            sum(m.weight * m.coefficients[name] ** 3 for m in given.members), rel=1e-6
        )
    assert space.warm


def test_guided_members_start_from_one_member_under_plain_guidance():
    given = preset()
    vector = warm_start(given, GATE, 2, Guidance(4.0))
    first, second = ensemble_space(GATE, 2, Guidance(4.0), vector).preset_members(vector)
    assert (first.weight, second.weight) == (4.0, -3.0)
    assert first.coefficients == second.coefficients
    assert first.coefficients == pytest.approx(given.members[0].coefficients, rel=1e-6)


def test_guided_members_start_from_a_guided_preset_as_it_is():
    given = preset((5.5, -4.0), guidance=Guidance(5.0))
    vector = warm_start(given, GATE, 2, Guidance(6.0))
    assert vector[-2:].tolist() == [5.5, -4.0]


def test_a_saved_preset_starts_the_same_run_as_the_one_in_memory():
    given = preset((0.7, 0.4))
    saved = Preset(
        given.family,
        given.blocks,
        "gate",
        tuple(
            Member({n: float(np.float32(v)) for n, v in m.coefficients.items()}, m.weight)
            for m in given.members
        ),
    )
    starts = [warm_start(p, GATE, 2, None).tobytes() for p in (given, saved)]
    assert starts[0] == starts[1]


def test_a_coarser_preset_starts_a_finer_search_and_not_the_other_way():
    coarse = preset(space=BLOCK)
    vector = warm_start(coarse, GATE, 1, None)
    values = list(coarse.members[0].coefficients.values())
    np.testing.assert_allclose(GATE.expand(vector[None])[0], BLOCK.expand(np.array([values]))[0])
    with pytest.raises(EnsembleSpaceError, match="set granularity to 'gate'"):
        warm_start(preset(), BLOCK, 1, None)


@pytest.mark.parametrize(
    ("given", "members", "guidance", "mend"),
    [
        (preset((0.5, 0.5, 0.1)), 2, None, "set members to 3 or more"),
        (preset((1.2,)), 1, None, "set members to 2 or more"),
        (preset((3.0, -2.0), guidance=Guidance(3.0)), 2, None, "turn guided members on"),
        (preset((0.5, 0.5)), 2, Guidance(3.0), "turn guided members off"),
        (preset((2.0,)), 2, Guidance(7.0), "lower cfg"),
    ],
)
def test_presets_that_cannot_start_the_run_say_what_to_do(given, members, guidance, mend):
    with pytest.raises(EnsembleSpaceError, match=mend):
        warm_start(given, GATE, members, guidance)


def test_a_preset_of_another_model_is_refused():
    taps = tuple(Tap("joint", i, "attention", "image", "", 0, 1) for i in range(2))
    other = coefficient_space(Backbone("sd3", {"joint": 2}, taps), "gate")
    with pytest.raises(PresetError, match="choose a preset that was found on this kind of model"):
        warm_start(preset(space=other), GATE, 1, None)


@pytest.mark.parametrize(
    ("members", "guidance", "mend"),
    [
        (0, None, "choose 1 to 8"),
        (9, None, "choose 1 to 8"),
        (3, Guidance(3.0), "set members to 2"),
        (2, Guidance(1.0), "set cfg above 1"),
        (2, Guidance(11.0), "at most 10"),
    ],
)
def test_members_that_cannot_be_searched_say_what_to_do(members, guidance, mend):
    with pytest.raises(EnsembleSpaceError, match=mend):
        ensemble_space(GATE, members, guidance)
