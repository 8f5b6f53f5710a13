"""The demo model in a comparison without ComfyUI."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.comparison import Setting
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.presets import Guidance, Member, Preset, PresetError
from comfyui_calibri.demo.judges import ALL_FACTS, FACTS
from comfyui_calibri.demo.painter import SCORES, DemoPainter
from comfyui_calibri.demo.pictures import MOST_ROWS, DemoModels
from comfyui_calibri.demo.prompts import PromptError

PROMPTS = ("a large red circle on a white background", "two small blue stars")
BUCKET = (Sample(0, 1), Sample(1, 2), Sample(0, 3))
SETTING = Setting(1, 1.0, "euler", "simple", 64, 64)
BLOCKS = {"double": 3, "single": 8}


@pytest.fixture(scope="module")
def models() -> DemoModels:
    return DemoModels.load()


def preset(*coefficients: float, weights: tuple[float, ...] = (1.0,), **more: object) -> Preset:
    """Members that scale every block alike."""
    names = [f"{kind}.{block}" for kind, count in BLOCKS.items() for block in range(count)]
    members = tuple(
        Member(dict.fromkeys(names, value), weight)
        for value, weight in zip(coefficients, weights, strict=True)
    )
    return Preset("flux", BLOCKS, "block", members, **more)  # type: ignore[arg-type]


def test_the_identity_draws_the_plain_model_to_the_last_bit(models: DemoModels) -> None:
    painter = DemoPainter(models, [preset(1.0), preset(0.8)], PROMPTS)
    plain, same, other = (painter.draw(variant, SETTING, BUCKET) for variant in range(3))
    np.testing.assert_array_equal(same.images, plain.images)
    assert (other.images != plain.images).any()
    assert plain.images.shape == (3, 64, 64, 3)
    assert plain.scores.keys() == set(SCORES)
    assert all(scores.shape == (3,) for scores in plain.scores.values())


def test_a_sample_is_drawn_alike_in_any_batch(models: DemoModels) -> None:
    painter = DemoPainter(models, [], PROMPTS)
    together, alone = painter.draw(0, SETTING, BUCKET), painter.draw(0, SETTING, BUCKET[1:2])
    difference = together.images[1].astype(int) - alone.images[0]
    assert np.abs(difference).max() <= 1
    assert alone.images.std() > 1


def test_the_checker_scores_what_is_drawn(models: DemoModels) -> None:
    scores = DemoPainter(models, [], PROMPTS).draw(0, replace(SETTING, steps=8), BUCKET).scores
    assert (scores[FACTS] > 0.5).any()  # two of three facts of an easy prompt
    assert set(scores[ALL_FACTS]) <= {0.0, 1.0}
    assert ((scores[FACTS] == 1.0) == (scores[ALL_FACTS] == 1.0)).all()


def test_members_are_summed_and_weigh_also_when_alone(models: DemoModels) -> None:
    halves, heavy = preset(0.9, 0.9, weights=(0.5, 0.5)), preset(0.9, weights=(1.2,))
    painter = DemoPainter(models, [preset(0.9), halves, heavy], PROMPTS)
    alone, summed, heavier = (painter.draw(variant, SETTING, BUCKET) for variant in (1, 2, 3))
    assert np.abs(summed.images.astype(int) - alone.images).max() <= 1
    assert np.abs(heavier.images.astype(int) - alone.images).max() > 20


def test_guided_members_at_ones_are_plain_guidance(models: DemoModels) -> None:
    guided = preset(1.0, 1.0, weights=(2.0, -1.0), guidance=Guidance(2.0))
    painter = DemoPainter(models, [guided], PROMPTS)
    cfg = replace(SETTING, cfg=2.0)
    plain, drawn = painter.draw(0, cfg, BUCKET), painter.draw(1, SETTING, BUCKET)
    assert np.abs(plain.images.astype(int) - drawn.images).max() <= 1
    assert (plain.images != painter.draw(0, SETTING, BUCKET).images).any()


def test_evaluations_of_the_model_are_counted(models: DemoModels) -> None:
    guided = preset(1.0, 1.0, weights=(2.0, -1.0), guidance=Guidance(2.0))
    pair = preset(0.9, 1.1, weights=(0.5, 0.5))
    painter = DemoPainter(models, [pair, guided], PROMPTS)
    for cfg, expected in ((1.0, (3, 6, 6)), (2.0, (6, 12, 6))):
        setting = replace(SETTING, steps=3, cfg=cfg)
        drawn = [painter.draw(variant, setting, BUCKET[:1]) for variant in range(3)]
        assert tuple(one.nfe for one in drawn) == expected


def test_a_preset_is_marked_by_its_numbers(models: DemoModels) -> None:
    def marks(*presets: Preset) -> list[str]:
        painter = DemoPainter(models, presets, PROMPTS)
        return [painter.mark(variant) for variant in range(len(presets) + 1)]

    assert len(set(marks(preset(0.8), preset(0.8 + 1e-6), preset(0.8, weights=(1.1,))))) == 4
    assert marks(preset(0.8)) == marks(preset(0.8))


def test_a_plan_holds_every_place_once_in_batches_that_suit_a_cpu(models: DemoModels) -> None:
    bucket = [Sample(0, seed) for seed in range(2 * MOST_ROWS + 1)]
    batches = DemoPainter(models, [], PROMPTS).plan(SETTING, bucket)
    assert [place for batch in batches for place in batch] == list(range(len(bucket)))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert max(map(len, batches)) <= MOST_ROWS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "heun"}, "'heun' with the scheduler 'simple' is ComfyUI's"),
        ({"scheduler": "beta"}, "'euler' with the scheduler 'beta' is ComfyUI's"),
        ({"width": 128}, "The size 128x64 is not the demo model's: it draws 64x64"),
    ],
)
def test_settings_that_only_comfyui_has_are_refused(
    models: DemoModels, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        DemoPainter(models, [], PROMPTS).plan(replace(SETTING, **change), BUCKET)  # type: ignore[arg-type]


def test_presets_and_prompts_that_are_not_the_demos_are_refused(models: DemoModels) -> None:
    with pytest.raises(PresetError, match="sd3"):
        DemoPainter(models, [replace(preset(1.0), family="sd3")], PROMPTS)
    with pytest.raises(PromptError, match="'dog'"):
        DemoPainter(models, [], ("a dog", "a circle"))
