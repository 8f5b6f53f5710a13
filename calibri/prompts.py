"""Prompt lists from text, and their split into prompts to search on and prompts held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path


class PromptListError(ValueError):
    """A prompt list that cannot be read or is too short for what is asked of it."""


@dataclass(frozen=True)
class PromptSplit:
    """Prompts to search on and prompts that only validation sees; no prompt is in both."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def parse_prompts(text: str, source: str = "The prompt text") -> tuple[str, ...]:
    """Prompts of `text`, one a line; lines that begin with # and repeated prompts are left out.

    Two prompts are the same if they differ only in case and white space. `source` begins the
    error message. Raises PromptListError if no prompt is left.
    """
    prompts: dict[str, str] = {}
    for line in text.lstrip("\ufeff").splitlines():
        prompt = " ".join(line.split())
        if prompt and not prompt.startswith("#"):
            prompts.setdefault(prompt.casefold(), prompt)
    if not prompts:
        raise PromptListError(f"{source} holds no prompts: write one prompt a line.")
    return tuple(prompts.values())


def read_prompts(path: Path | str) -> tuple[str, ...]:
    """The prompts of a UTF-8 text file, as `parse_prompts`.

    Raises PromptListError for a file that is missing, unreadable, not text, or without prompts.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptListError(
            f"The prompt file {path} is not UTF-8 text: save it as UTF-8, one prompt a line."
        ) from error
    except OSError as error:
        raise PromptListError(
            f"The prompt file {path} cannot be read ({error.strerror}): check its name and folder."
        ) from error
    return parse_prompts(text, f"The prompt file {path}")


def split_prompts(prompts: Sequence[str], held_out: int, seed: int) -> PromptSplit:
    """Hold out `held_out` of the prompts, chosen by `seed`; both parts keep the list's order.

    Each prompt's draw depends on its own text, so a list that grows keeps nearly the same split.
    Raises PromptListError if that leaves fewer than one prompt to search on.
    """
    if not 0 < held_out < len(prompts):
        raise PromptListError(
            f"{held_out} prompts cannot be held out of {len(prompts)}: hold out at least one and "
            "leave at least one to search on, or add prompts."
        )

    def draw(prompt: str) -> bytes:
        return blake2b(f"{seed}/{prompt.casefold()}".encode()).digest()

    chosen = set(sorted(prompts, key=draw)[:held_out])
    return PromptSplit(
        training=tuple(prompt for prompt in prompts if prompt not in chosen),
        held_out=tuple(prompt for prompt in prompts if prompt in chosen),
    )
