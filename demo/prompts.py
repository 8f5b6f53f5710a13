"""The demo's language: a `Description` as plain English, and English back as a `Description`.

"a small red circle left of a large blue square on a white background". Articles carry no meaning,
words may be left out wherever `Description` may leave something open.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .scenes import (
    BACKGROUNDS,
    COLOURS,
    NUMBERS,
    SHAPES,
    SIZES,
    Description,
    Noun,
    sample_description,
)

_PLURALS = {f"{shape}es" if shape == "cross" else f"{shape}s": shape for shape in SHAPES}
_TO_PLURAL = {shape: plural for plural, shape in _PLURALS.items()}

WORDS: tuple[str, ...] = (
    "a",
    "and",
    "on",
    "background",
    "left",
    "right",
    "of",
    "above",
    "below",
    *NUMBERS,
    *SIZES,
    *COLOURS,
    *BACKGROUNDS,
    *SHAPES,
    *_PLURALS,
)
"""Every word of the language, in the order of the text encoder's vocabulary."""


class PromptError(ValueError):
    """A prompt is not in the demo's language; the message says which word and what would do."""


def to_text(description: Description) -> str:
    """Write a description as a prompt."""
    joint = f" {description.relation} " if description.relation else " and "
    text = joint.join(_noun_text(noun) for noun in description.nouns)
    return f"{text} on a {description.background} background" if description.background else text


def _noun_text(noun: Noun) -> str:
    article = {1: "a", 2: "two", 3: "three"}[noun.count]
    shape = noun.shape if noun.count == 1 else _TO_PLURAL[noun.shape]
    return " ".join(word for word in (article, noun.size, noun.colour, shape) if word)


def split_words(prompt: str) -> list[str]:
    """A prompt's words: lower case, no punctuation, "an", "grey", "the" and "to" made plain."""
    cleaned = "".join(c if c.isalnum() else " " for c in prompt.lower())
    synonyms = {"an": "a", "grey": "gray"}
    return [synonyms.get(word, word) for word in cleaned.split() if word not in ("the", "to")]


def parse(prompt: str) -> Description:
    """Read a prompt. Raises PromptError where it is not in the language.

    Punctuation, case, "an", "the", "to" and "grey" are forgiven.
    """
    words = split_words(prompt)
    for word in words:
        if word not in WORDS:
            raise PromptError(
                f"The prompt {prompt!r} holds the word {word!r}, which the demo does not know; "
                f"its words are: {', '.join(WORDS)}."
            )
    body, background = _split_background(words, prompt)
    nouns: list[Noun] = []
    relation: str | None = None
    count, size, colour = 1, None, None
    for word in body:
        if word in NUMBERS:
            count = NUMBERS[word]
        elif word in SIZES:
            size = word
        elif word in COLOURS:
            colour = word
        elif word in SHAPES or word in _PLURALS:
            nouns.append(Noun(_PLURALS.get(word, word), colour, size, count))
            count, size, colour = 1, None, None
        elif word in ("left", "right", "above", "below"):
            relation = f"{word} of" if word in ("left", "right") else word
    if not 1 <= len(nouns) <= 2 or (relation is not None and len(nouns) != 2):
        raise PromptError(
            f"The prompt {prompt!r} names {len(nouns)} kinds of shapes; the demo draws one or two, "
            'such as "a red circle left of a small blue square on a white background".'
        )
    if relation is not None and any(noun.count > 1 for noun in nouns):
        raise PromptError(
            f"The prompt {prompt!r} sets several alike shapes {relation} something; "
            "the demo knows relations between single shapes only."
        )
    return Description(tuple(nouns), relation, background)


def _split_background(words: list[str], prompt: str) -> tuple[list[str], str | None]:
    if "background" not in words:
        return words, None
    end = words.index("background")
    if end < 1 or words[end - 1] not in BACKGROUNDS:
        raise PromptError(
            f"The prompt {prompt!r} names no known background; "
            f'write for instance "on a {next(iter(BACKGROUNDS))} background" '
            f"(known: {', '.join(BACKGROUNDS)})."
        )
    return words[: end - 1] + words[end + 1 :], words[end - 1]


def is_held_out(text: str) -> bool:
    """Whether a prompt belongs to the held-out fifth that no training picture was drawn for."""
    return hashlib.blake2s(text.encode(), digest_size=1).digest()[0] % 5 == 0


def generate_prompts(count: int, seed: int, split: str = "train") -> list[str]:
    """Draw `count` different prompts of a split, "train" or "test" (held out)."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'test'.")
    rng = np.random.default_rng((seed, split == "test"))
    found: dict[str, None] = {}
    while len(found) < count:
        text = to_text(sample_description(rng))
        if is_held_out(text) == (split == "test"):
            found[text] = None
    return list(found)
