"""The demo's scenes, prompts and judge."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from comfyui_calibri.demo.checker import check, look
from comfyui_calibri.demo.prompts import PromptError, generate_prompts, is_held_out, parse, to_text
from comfyui_calibri.demo.render import render
from comfyui_calibri.demo.scenes import COLOURS, Scene, Thing, sample_pairs, sample_scene
from comfyui_calibri.demo.text_encoder import LENGTH

PAIRS = list(islice(sample_pairs(11), 150))


def test_a_prompt_reads_back_as_what_it_was_written_from() -> None:
    for description, _ in PAIRS:
        assert parse(to_text(description)) == description


def test_no_prompt_is_longer_than_the_text_encoder() -> None:
    assert max(len(to_text(description).split()) for description, _ in PAIRS) <= LENGTH - 2


def test_forgiven_spellings() -> None:
    strict = parse("a small red circle left of a large blue square on a gray background")
    assert strict == parse(
        "A small red circle, to the left of a large blue square, on a GREY background."
    )


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a red dog", "'dog'"),
        ("", "0 kinds"),
        ("a circle and a square and a star", "3 kinds"),
        ("two circles above a star", "single shapes"),
        ("a circle on a red background", "white background"),
    ],
)
def test_a_prompt_outside_the_language_is_refused_with_the_reason(prompt: str, named: str) -> None:
    with pytest.raises(PromptError, match=named):
        parse(prompt)


def test_the_splits_share_no_prompt_and_seeds_decide() -> None:
    train, test = generate_prompts(300, 4, "train"), generate_prompts(300, 4, "test")
    assert not set(train) & set(test)
    assert all(map(is_held_out, test))
    assert len(set(test)) == 300
    assert generate_prompts(300, 4, "train") == train
    assert generate_prompts(300, 5, "train") != train


def test_the_checker_finds_every_fact_in_a_true_picture() -> None:
    verdicts = [check(render(scene), description) for description, scene in PAIRS]
    assert all(verdict.all_facts == 1.0 for verdict in verdicts)
    assert np.mean([verdict.fit for verdict in verdicts]) > 0.95


def test_the_checker_measures_what_is_there() -> None:
    scene = Scene("gray", (Thing("star", "cyan", "large", 20.0, 40.0, 12.0),))
    background, (found,) = look(render(scene))
    assert (background, found.shape, found.colour, found.size) == ("gray", "star", "cyan", "large")
    assert abs(found.x - 20.0) < 0.5


def test_a_single_wrong_attribute_costs_exactly_its_fact() -> None:
    description = parse("a small red circle left of a large blue square on a white background")
    scene = sample_scene(description, np.random.default_rng(0))
    facts = 9  # three per object, relation, count, background
    for wrong in ({"colour": "green"}, {"shape": "cross"}):
        things = (replace(scene.things[0], **wrong), scene.things[1])
        verdict = check(render(Scene(scene.background, things)), description)
        assert verdict.facts == pytest.approx(1 - 1 / facts)
        assert verdict.all_facts == 0.0


def test_a_missing_object_and_an_empty_picture_are_judged() -> None:
    description = parse("a red circle and a blue star")
    only = Scene("white", (Thing("circle", "red", "small", 20.0, 20.0, 7.0),))
    assert check(render(only), description).facts == pytest.approx(2 / 5)
    empty = np.full((64, 64, 3), 245, dtype=np.uint8)
    verdict = check(empty, description)
    assert (verdict.facts, verdict.fit) == (0.0, 0.0)


def test_scenes_leave_open_what_the_prompt_leaves_open() -> None:
    description = parse("a circle")
    rng = np.random.default_rng(0)
    scenes = [sample_scene(description, rng) for _ in range(200)]
    assert {scene.things[0].colour for scene in scenes} == set(COLOURS)
    assert len({round(scene.things[0].x) for scene in scenes}) > 20
