"""What prompts demand, and how far detections and a CLIP's answers meet it, by hand-made cases."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from comfyui_calibri.rewards import compositional, named_colours, nouns
from comfyui_calibri.rewards.clip_composition import ClipComposition, questions
from comfyui_calibri.rewards.compositional import Box
from comfyui_calibri.rewards.demands import (
    COLOURS,
    Demand,
    Relation,
    Thing,
    demand_of,
    parse_demand,
    read_demands,
)


@pytest.mark.parametrize(
    ("prompt", "things", "relations"),
    [
        ("a cat", [Thing("cat")], []),
        ("Two red cubes.", [Thing("cube", 2, True, "red")], []),
        ("a photo of 3 wine glasses", [Thing("wine glass", 3, True)], []),
        (
            "a grey dog to the left of an orange",
            [Thing("dog", colour="gray"), Thing("orange")],
            [Relation(0, "left of", 1)],
        ),
        (
            "a cup on top of a book and two green apples, in a kitchen",
            [Thing("cup"), Thing("book"), Thing("apple", 2, True, "green")],
            [Relation(0, "above", 1)],
        ),
        ("one wooden bench on a white background", [Thing("wooden bench", 1, True)], []),
        ("cats and dogs", [Thing("cat"), Thing("dog")], []),
    ],
)
def test_a_prompt_says_what_it_demands(
    prompt: str, things: list[Thing], relations: list[Relation]
) -> None:
    assert parse_demand(prompt) == Demand(tuple(things), tuple(relations))


@pytest.mark.parametrize("prompt", ["", " , and ", "a", "on a white background"])
def test_a_prompt_without_things_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="names nothing that could be counted"):
        parse_demand(prompt)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("a red and blue ball", "'a red' is a colour of nothing"),
        ("0 cats", "'0 cats' asks for nothing"),
        ("a dog and no cats", "'no cats' asks for nothing"),
    ],
)
def test_what_cannot_be_judged_is_refused(prompt: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_demand(prompt)


def test_more_than_a_clip_can_count_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot tell 12 cats"):
        questions(parse_demand("12 cats"))


def test_demands_may_be_written_out(tmp_path: Path) -> None:
    file = tmp_path / "demands.json"
    objects = [{"name": "cubes", "count": 2, "color": "grey"}, {"name": "ball"}]
    entry = {"prompt": "Some  Cubes", "objects": objects, "relations": [[0, "above", 1]]}
    file.write_text(json.dumps([entry]), encoding="utf-8")
    known = read_demands(file)
    expected = Demand((Thing("cube", 2, True, "gray"), Thing("ball")), (Relation(0, "above", 1),))
    assert demand_of("some cubes", known) == expected
    assert demand_of("a cat", known) == parse_demand("a cat")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read as JSON"),
        pytest.param("[" * 100_000, "cannot be read as JSON", id="deep"),
        ("[]", "holds no list"),
        ('[{"prompt": "a", "objects": [{"name": "x", "count": true}]}]', "count True is no number"),
        (
            '[{"prompt": "a", "objects": [{"name": "x"}], "relations": [[0.0, "above", 0]]}]',
            "names an object that is not there",
        ),
        ('[{"prompt": "a"}]', r"entry 1 is no prompt with objects \('objects'\)"),
        ('[{"prompt": "a", "objects": []}]', "it has no objects"),
        ('[{"prompt": "a", "objects": [{"name": "x", "colour": "mauve"}]}]', "'mauve' is none of"),
        ('[{"prompt": "a", "objects": [{"name": "x", "count": 0}]}]', "count 0 is no number"),
        (
            '[{"prompt": "a", "objects": [{"name": "x"}], "relations": [[0, "above", 1]]}]',
            "names an object that is not there",
        ),
    ],
)
def test_demands_that_are_wrong_are_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "d.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        read_demands(tmp_path / "d.json")


def test_one_and_many() -> None:
    pairs = {"cube": "cubes", "box": "boxes", "city": "cities", "person": "people", "bus": "buses"}
    for one, many in {**pairs, "wine glass": "wine glasses", "horse": "horses"}.items():
        assert nouns.plural(one) == many
        assert nouns.singular(many) == nouns.singular(one) == one
    assert nouns.same("wooden bench", "bench")
    assert nouns.same("hydrant", "Fire_Hydrants")
    assert not nouns.same("car", "cart")


def box(label: str, x: float, y: float = 0.0, side: float = 10.0, score: float = 0.9) -> Box:
    return Box(label, score, x - side / 2, y - side / 2, side, side)


def no_colour(box: Box, colour: str) -> float:
    raise AssertionError("nobody asked for a colour")


@pytest.mark.parametrize(
    ("prompt", "boxes", "expected"),
    [
        ("a cat", [], 0.0),
        ("a cat", [box("cat", 0), box("cat", 50)], 1.0),
        ("one cat", [box("cat", 0), box("cat", 50)], 0.5),
        ("three cats", [box("cat", 0), box("cat", 50), box("dog", 9)], 2 / 3),
        ("two cats", [box("cat", i * 50) for i in range(5)], 0.4),
        ("a cat left of a dog", [box("cat", 0), box("dog", 40)], 1.0),
        ("a cat right of a dog", [box("cat", 0), box("dog", 40)], 2 / 3),
        ("a cat left of a dog", [box("cat", 0), box("dog", 5)], (1 + 1 + 0.5) / 3),
        ("a cat left of a dog", [box("cat", 0), box("dog", 20, 40)], (1 + 1 + 0.5) / 3),
        ("a cat above a dog", [box("cat", 0, 0), box("dog", 0, 30)], 1.0),
        ("a cat below a dog", [box("cat", 0)], 1 / 3),
        ("a cat next to a dog", [box("cat", 0), box("dog", 15)], (1 + 1 + 0.5) / 3),
        ("a cat left of a cat", [box("cat", 0, score=0.99), box("cat", 40)], 1.0),
        ("a cat left of a cat", [box("cat", 0), box("cat", 40, score=0.99)], 1.0),
    ],
)
def test_detections_earn_credit_for_a_part(prompt: str, boxes: list[Box], expected: float) -> None:
    scored = compositional.score(parse_demand(prompt), boxes, no_colour)
    assert scored == pytest.approx(expected)


def test_colours_are_those_of_the_boxes() -> None:
    shares = {(0.0, "red"): 0.6, (50.0, "red"): 0.1, (50.0, "blue"): 0.9}

    def share(box: Box, colour: str) -> float:
        return shares.get((box.centre[0], colour), 0.0)

    boxes = [box("cube", 0), box("cube", 50)]

    def score(prompt: str) -> float:
        return compositional.score(parse_demand(prompt), boxes, share)

    assert score("a red cube") == 1.0
    assert score("two red cubes") == pytest.approx((1 + (1.0 + 0.2) / 2) / 2)
    assert score("a red cube left of a blue cube") == 1.0
    assert score("a blue cube left of a red cube") == pytest.approx(4 / 5)
    assert score("a green cube") == 0.5


@pytest.mark.parametrize(
    ("rgb", "colour"),
    [
        ((255, 0, 0), "red"), ((0, 255, 0), "green"), ((0, 0, 255), "blue"),
        ((255, 255, 0), "yellow"), ((255, 165, 0), "orange"), ((128, 0, 128), "purple"),
        ((255, 192, 203), "pink"), ((139, 69, 19), "brown"), ((0, 0, 0), "black"),
        ((255, 255, 255), "white"), ((120, 122, 119), "gray"),
    ],
)  # fmt: skip
def test_colours_have_their_names(rgb: tuple[int, int, int], colour: str) -> None:
    picture = (torch.tensor(rgb) / 255.0).expand(4, 4, 3)
    assert {name: named_colours.share(picture, name) for name in COLOURS} == {
        name: float(name == colour) for name in COLOURS
    }


class SeesRed:
    """In the place of a CLIPScore: brighter images fit texts with "red" better."""

    name = "CLIPScore (small)"
    network = nn.Linear(1, 1)

    def compare(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        red = torch.tensor([float("red" in text.split()) for text in texts])
        return images.mean((1, 2, 3))[:, None] * red


def test_a_clip_answers_one_question_for_each_fact() -> None:
    demand = parse_demand("two red cubes left of an apple")
    asked = questions(demand)
    assert [question[0] for question in asked] == [
        "a photo of a cube",
        "a photo of two cubes",
        "a photo of a red cube",
        "a photo of an apple",
        "a photo of a cube left of an apple",
    ]
    assert [len(set(question)) for question in asked] == [2, 5, 11, 2, 4]
    reward = ClipComposition(SeesRed(), {})  # type: ignore[arg-type]
    images = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 4, 4, 3)
    plain, bright = reward.score(images, ["two red cubes left of an apple"] * 2).tolist()
    others = 1 / 2 + 1 / 5 + 1 / 2 + 1 / 4
    assert plain == pytest.approx((others + 1 / 11) / 5)
    assert bright == pytest.approx((others + math.exp(2) / (math.exp(2) + 10)) / 5)
    with pytest.raises(ValueError, match="prompt 1 of 1 is empty"):
        reward.score(images[:1], [" "])
