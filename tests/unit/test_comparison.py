"""A comparison draws every cell from the same noise in the same batches, and keeps what it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.comparison import PLAIN, ComparisonError, variant_names
from comfyui_calibri.calibri.comparison_course import Part, Progressed, compare
from comfyui_calibri.calibri.diversity import diversity
from comfyui_calibri.calibri.evaluation import RewardError

from .comparisons import QUALITY, ToyPainter, assert_equal, comparison


class Memory:
    """A keeper that forgets nothing while the test runs."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    def find(self, key: str) -> Part | None:
        return self.parts.get(key)

    def keep(self, key: str, part: Part) -> None:
        self.parts[key] = part


def test_all_variants_draw_the_same_noise_in_the_same_batches() -> None:
    painter = ToyPainter(QUALITY)
    compare(comparison(), painter)
    by_variant = [[(s, b) for v, s, b in painter.calls if v == variant] for variant in (0, 1)]
    assert by_variant[0] == by_variant[1]
    seeds = [sample.seed for _, bucket in by_variant[0][:3] for sample in bucket]
    assert len(set(seeds)) == 12


def test_every_setting_draws_the_same_noise() -> None:
    painter = ToyPainter(QUALITY)
    compare(comparison(), painter)
    by_setting = [[b for v, s, b in painter.calls if v == 0 and s.steps == n] for n in (2, 4)]
    assert by_setting[0] == by_setting[1]


def test_more_prompts_leave_the_noise_of_the_others() -> None:
    few, many = comparison(prompts=6).samples, comparison(prompts=9).samples
    assert many[: len(few)] == few


def test_a_cell_holds_scores_by_prompt_and_seed_and_the_shown_pictures() -> None:
    compared = comparison(prompts=10)
    painter = ToyPainter(QUALITY, size=7)
    cells = compare(compared, painter)
    cell = cells[1, 0]
    drawn = painter.draw(1, compared.settings[0], compared.samples)
    assert cell.scores["likeness"].shape == (10, 2)
    np.testing.assert_array_equal(cell.scores["likeness"].ravel(), drawn.scores["likeness"])
    pictures = drawn.images.reshape(10, 2, *drawn.images.shape[1:])
    np.testing.assert_allclose(cell.diversity, diversity(pictures), rtol=1e-5)
    np.testing.assert_array_equal(cell.pictures, pictures[:8, 0])
    assert cells[1, 1].pictures is None
    assert cell.nfe == 2
    assert cell.seconds == pytest.approx(0.2)


def test_one_image_a_prompt_has_no_diversity() -> None:
    cells = compare(comparison(images=1), ToyPainter(QUALITY))
    assert all(cell.diversity is None for cell in cells.values())


def test_batches_that_do_not_fit_are_halved_and_change_nothing() -> None:
    assert_equal(
        compare(comparison(), ToyPainter(QUALITY, most=1)),
        compare(comparison(), ToyPainter(QUALITY)),
    )


@pytest.mark.parametrize("stop", [1, 4, 11])
def test_a_cancelled_comparison_loses_no_finished_batch(stop: int) -> None:
    class Stops(ToyPainter):
        def draw(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if len(self.calls) == stop:
                raise KeyboardInterrupt
            return super().draw(*args, **kwargs)

    memory, stopped, resumed = Memory(), Stops(QUALITY), ToyPainter(QUALITY)
    with pytest.raises(KeyboardInterrupt):
        compare(comparison(), stopped, memory)
    found = compare(comparison(), resumed, memory)
    assert_equal(found, compare(comparison(), ToyPainter(QUALITY)))
    assert len(stopped.calls) == stop
    assert len(resumed.calls) == 12 - stop


def test_another_step_count_or_preset_draws_only_what_is_new() -> None:
    memory = Memory()
    compare(comparison(), ToyPainter(QUALITY), memory)
    wider = ({**QUALITY[0], 8: 1.0}, {**QUALITY[1], 8: 2.0}, {2: 0.0, 4: 0.0, 8: 0.0})
    painter = ToyPainter(wider)
    compare(comparison((2, 4, 8), variants=3), painter, memory)
    drawn = {(variant, setting.steps) for variant, setting, _ in painter.calls}
    # The third preset's pictures come into the grid, the plain model's are in it already.
    assert drawn == {(0, 8), (1, 8), (2, 2), (2, 4), (2, 8)}


@pytest.mark.parametrize("change", ["mark", "prompts", "seed", "rewards"])
def test_what_other_things_made_is_not_taken_for_this(change: str) -> None:
    memory, painter, compared = Memory(), ToyPainter(QUALITY), comparison()
    compare(compared, painter, memory)
    if change == "mark":
        painter.mark = lambda variant: f"other {variant}"  # type: ignore[method-assign]
    elif change == "prompts":
        compared = replace(compared, prompts=tuple(p + "!" for p in compared.prompts))
    elif change == "seed":
        compared = replace(compared, seed=1)
    else:
        compared = replace(compared, rewards=("likeness",))
    compare(compared, painter, memory)
    assert len(painter.calls) == 24


def test_pictures_that_were_not_kept_are_drawn_again() -> None:
    memory, painter = Memory(), ToyPainter(QUALITY)
    compare(replace(comparison(), shown=()), painter, memory)
    assert len(painter.calls) == 12
    cells = compare(comparison(), painter, memory)
    assert cells[0, 0].pictures is not None
    assert len(painter.calls) == 12 + 6  # the shown setting's, of both variants


def test_progress_counts_every_image_once() -> None:
    heard: list[Progressed] = []
    compare(comparison(), ToyPainter(QUALITY), on_batch=heard.append)
    assert [step.done for step in heard][-1] == heard[0].total == 48
    assert {(step.variant, step.setting) for step in heard} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    # Whoever is first may wait for something that loads: they take turns.
    assert {step.variant for step in heard[::2]} == {0, 1}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    painter = ToyPainter(({2: value, 4: 0.0}, {2: 0.0, 4: 0.0}))
    with pytest.raises(RewardError, match="finite number"):
        compare(comparison(), painter)


def test_what_cannot_be_compared_is_refused() -> None:
    compared = comparison()
    for change, said in (
        ({"prompts": ("one", "one")}, "at least two"),
        ({"variants": (PLAIN, PLAIN)}, "a name of its own"),
        ({"rewards": ("a", "a")}, "a name of its own"),
        ({"settings": ()}, "at least one of both"),
        ({"images_per_prompt": 0}, "at least one of both"),
    ):
        with pytest.raises(ComparisonError, match=said):
            replace(compared, **change)  # type: ignore[arg-type]


def test_presets_are_named_by_their_titles_and_told_apart() -> None:
    long = "x" * 200
    names = variant_names(
        ["flux.safetensors: HPSv3", "flux: HPSv3", "", "plain", " two\nlines ", long, long]
    )
    assert names[:6] == (
        "plain",
        "flux: HPSv3",
        "flux: HPSv3 (2)",
        "preset 3",
        "plain (2)",
        "two lines",
    )
    assert max(map(len, names)) <= 60
    assert len(set(names)) == len(names)
