"""English nouns, one and many, as far as counting things in pictures needs them."""

from __future__ import annotations

_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
    "geese": "goose", "feet": "foot", "teeth": "tooth", "knives": "knife", "wolves": "wolf",
    "leaves": "leaf", "loaves": "loaf", "buses": "bus", "sheep": "sheep", "fish": "fish",
    "deer": "deer",
}  # fmt: skip
_MANY = {one: many for many, one in _IRREGULAR.items()}
_WITH_ES = ("ches", "shes", "xes", "sses", "zes", "oes")


def singular(noun: str) -> str:
    """ "wine glasses" → "wine glass"; a singular stays."""
    before, word = _split(noun)
    if word in _IRREGULAR:
        return before + _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return before + word[:-3] + "y"
    if word.endswith(_WITH_ES):
        return before + word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return before + word[:-1]
    return noun


def plural(noun: str) -> str:
    """ "wine glass" → "wine glasses"."""
    before, word = _split(noun)
    if word in _MANY:
        return before + _MANY[word]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return before + word[:-1] + "ies"
    return before + word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def same(noun: str, label: str) -> bool:
    """Whether a detector's label is the noun: equal, or one is the other's last words."""
    wanted, given = (singular(name.lower().replace("_", " ")).split() for name in (noun, label))
    length = min(len(wanted), len(given))
    return length > 0 and wanted[-length:] == given[-length:]


def _split(noun: str) -> tuple[str, str]:
    head, space, word = noun.rpartition(" ")
    return head + space, word
