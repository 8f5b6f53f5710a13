"""Prompt lists: what counts as a prompt, and a split that keeps prompts apart."""

import pytest

from comfyui_calibri.calibri.prompts import (
    PromptListError,
    parse_prompts,
    read_prompts,
    split_prompts,
)

PROMPTS = tuple(f"prompt {n}" for n in range(40))


def test_comments_blank_lines_and_repeats_are_left_out():
    text = "\ufeff# animals\r\na  red fox \n\n  # more\nA RED fox\na #1 fan, (sharp:1.2)\n"
    assert parse_prompts(text) == ("a red fox", "a #1 fan, (sharp:1.2)")


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment\n"])
def test_no_prompts_is_an_error(text):
    with pytest.raises(PromptListError, match="holds no prompts: write one prompt a line"):
        parse_prompts(text)


def test_files(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffein Bär\r\nein Fuchs".encode())
    assert read_prompts(path) == ("ein Bär", "ein Fuchs")
    path.write_bytes(b"\xff\xd8\xff\xe0 picture")
    with pytest.raises(PromptListError, match="is not UTF-8 text"):
        read_prompts(path)
    path.write_text("#")
    with pytest.raises(PromptListError, match=r"prompts\.txt holds no prompts"):
        read_prompts(path)
    with pytest.raises(PromptListError, match="cannot be read"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(PromptListError, match="cannot be read"):
        read_prompts(tmp_path)


def test_the_split_is_complete_disjoint_and_repeatable():
    split = split_prompts(PROMPTS, 10, seed=1)
    assert len(split.held_out) == 10
    assert sorted(split.training + split.held_out) == sorted(PROMPTS)
    assert split == split_prompts(PROMPTS, 10, seed=1)
    assert split != split_prompts(PROMPTS, 10, seed=2)
    assert list(split.held_out) == sorted(split.held_out, key=PROMPTS.index)


def test_the_split_does_not_depend_on_order_and_hardly_on_additions():
    split = split_prompts(PROMPTS, 10, seed=1)
    assert set(split_prompts(PROMPTS[::-1], 10, seed=1).held_out) == set(split.held_out)
    longer = split_prompts((*PROMPTS, "one more"), 10, seed=1)
    assert len(set(longer.held_out) & set(split.held_out)) >= 9


@pytest.mark.parametrize("held_out", [0, -1, 40, 41])
def test_a_split_that_leaves_nothing_is_an_error(held_out):
    with pytest.raises(PromptListError, match="leave at least one to search on"):
        split_prompts(PROMPTS, held_out, seed=1)
