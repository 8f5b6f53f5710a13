"""Prompt files, samples, splits and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyui_calibri.calibri.prompt_sets import (
    TaggedPrompt,
    read_prompt_set,
    sample_prompts,
    split_in_three,
)
from comfyui_calibri.calibri.prompt_templates import expand_template, parse_lists
from comfyui_calibri.calibri.prompts import PromptListError

CAT, DOG = TaggedPrompt("a cat", frozenset({"pet", "cats"}), 2.0), TaggedPrompt("a dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", '\ufeffPrompt,weight,tags\n"a  cat",2,Pet; cats\nA CAT,9,\na dog,,\n,1,\n'),
        ("p.csv", "tags,prompt,weight,more\nPet|cats,a cat,2,x\n,a dog,1.0,y\n"),
        ("p.json", '[{"prompt": "a cat", "tags": ["Pet", "cats"], "weight": 2}, "a dog"]'),
        ("p.json", '{"prompts": [{"prompt": "a cat", "tags": "pet;cats", "weight": "2"},"a dog"]}'),
    ],
)
def test_files_hold_prompts_tags_and_weights(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_prompt_set(tmp_path / name) == (CAT, DOG)


def test_text_files_are_as_ever(tmp_path: Path) -> None:
    (tmp_path / "p.TXT").write_text("# mine\na cat\na dog\n", encoding="utf-8")
    assert [p.text for p in read_prompt_set(tmp_path / "p.TXT")] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("p.csv", "text,weight\na,1\n", r'no column "prompt" \(its first row says text, weight\)'),
        ("p.csv", "prompt\n", "holds no prompts"),
        ("p.csv", "", 'no column "prompt"'),
        ("p.csv", "prompt,weight\na,heavy\n", "p.csv: row 2 has the weight 'heavy'"),
        ("p.json", '[{"prompt": "a", "weight": -1}]', "p.json: entry 1 has the weight -1"),
        ("p.json", "{", "cannot be read as JSON"),
        pytest.param("p.json", "[" * 100_000, "cannot be read as JSON", id="deep"),
        ("p.json", '{"a": 1}', "holds no list of prompts"),
        ("p.json", '["a", {"text": "b"}]', "entry 2 is no prompt"),
        ("p.json", "[]", "holds no prompts"),
        ("p.md", "a", "is no prompt file"),
    ],
)
def test_files_that_are_wrong_are_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(PromptListError, match=problem):
        read_prompt_set(tmp_path / name)


MANY = tuple(TaggedPrompt(f"prompt {n}", weight=9.0 if n < 100 else 1.0) for n in range(200))


def test_samples_are_drawn_by_weight_and_seed() -> None:
    drawn = sample_prompts(MANY, (), 50, seed=1)
    assert drawn == sample_prompts(MANY, (), 50, seed=1) != sample_prompts(MANY, (), 50, seed=2)
    places = [int(text.split()[1]) for text in drawn]
    assert len(drawn) == 50
    assert places == sorted(places)
    assert 38 <= sum(place < 100 for place in places) <= 50  # 45 is expected
    longer = sample_prompts((*MANY, TaggedPrompt("one more")), (), 50, seed=1)
    assert len(set(longer) & set(drawn)) >= 49
    assert sample_prompts((CAT, DOG), (), 0, 0) == sample_prompts((CAT, DOG), (), 9, 0)


def test_samples_are_chosen_by_tag() -> None:
    assert sample_prompts((CAT, DOG), ["PET ", ""], 0, 0) == ("a cat",)
    with pytest.raises(PromptListError, match="tags birds; there are cats, pet"):
        sample_prompts((CAT, DOG), ["birds"], 0, 0)
    with pytest.raises(PromptListError, match="weight 0"):
        sample_prompts((TaggedPrompt("a", weight=0.0),), (), 0, 0)


def test_a_split_is_complete_and_keeps_what_is_the_same_together() -> None:
    prompts = tuple(f"prompt {n}" for n in range(40))
    prompts += tuple(f"PROMPT   {n}" for n in range(40))
    train, validation, test = split_in_three(prompts, 0.25, 0.1, seed=3)
    assert sorted(train + validation + test) == sorted(prompts)
    keys = [{" ".join(text.lower().split()) for text in part} for part in (train, validation, test)]
    assert [len(part) for part in keys] == [26, 10, 4]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    assert split_in_three(prompts, 0.25, 0.1, seed=3) == (train, validation, test)
    assert split_in_three(prompts[::-1], 0.25, 0.1, seed=3)[2] == test[::-1]
    assert split_in_three(prompts, 0.0, 0.0, seed=3) == (prompts, (), ())


@pytest.mark.parametrize(("count", "share"), [(0, 0.2), (2, 0.2), (10, 0.5)])
def test_a_split_that_leaves_nothing_is_refused(count: int, share: float) -> None:
    with pytest.raises(PromptListError, match="leave none to train on"):
        split_in_three([f"prompt {n}" for n in range(count)], share, share, 0)


LISTS = {"colour": ("red", "blue"), "size_of it": ("small",)}


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a cat", ["a cat"]),
        ("{a|two} __colour__ {cube|}", ["a red cube", "a red", "a blue cube", "a blue",
                                        "two red cube", "two red", "two blue cube", "two blue"]),
        ("a {b {c|d}|__size_of it__ e}", ["a b c", "a b d", "a small e"]),
        ("# no\n{a|A|b}\n\nb\nx__y", ["a", "b", "x__y"]),
    ],
)  # fmt: skip
def test_templates_make_all_their_prompts(template: str, prompts: list[str]) -> None:
    assert list(expand_template(template, LISTS, 100, seed=0)) == prompts


def test_large_templates_are_drawn_from() -> None:
    template = "\n".join(["{a|b|c|d} {e|f|g|h} {i|j|k|l} {m|n|o|p} {q|r|s|t}"] * 2)
    drawn = expand_template(template, {}, 300, seed=1)
    assert len(set(drawn)) == 300
    assert drawn == expand_template(template, {}, 300, seed=1)
    assert drawn != expand_template(template, {}, 300, seed=2)
    assert 40 < sum(text.startswith("a ") for text in drawn) < 110
    assert len(expand_template("{a|b} " * 30, {}, 5, seed=0)) == 5


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "template is empty"),
        ("# nothing", "template is empty"),
        ("{|}", "empty prompts only"),
        ("a {b|c", "open brace"),
        ("a b} c", "was not opened"),
        pytest.param("{" * 2000, "more than 50 deep", id="deep"),
        ("a __shape__", r"list 'shape', but the lists are: colour, size_of it"),
    ],
)
def test_templates_that_are_wrong_are_named(template: str, problem: str) -> None:
    with pytest.raises(PromptListError, match=problem):
        expand_template(template, LISTS, 10, seed=0)


def test_lists_are_lines() -> None:
    text = "# mine\ncolour: red, green,\n\nsize: small\ncolour: blue"
    assert parse_lists(text) == {"colour": ("red", "green", "blue"), "size": ("small",)}
    for wrong in ("red, green", "colour:", ": red", "a__b: c"):
        with pytest.raises(PromptListError, match="is no list"):
            parse_lists(wrong)
