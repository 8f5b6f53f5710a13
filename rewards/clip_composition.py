"""Composition as a CLIP sees it: one question for each fact, against its alternatives.

"a photo of two cubes" stands against one, three, four and five cubes, "a red cube" against the
other colours, "a cube left of a ball" against the other directions, and each thing against "a
photo". The answer to a question is the right text's share of the softmax over CLIP's 100 cos, the
score their mean. CLIPs count and place badly: a detector sees more (`compositional.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from . import nouns
from .batch import check_batch, check_prompts, check_scores
from .clip_rewards import CLIPScore
from .demands import ABOVE, BELOW, COLOURS, LEFT, NUMBERS, RIGHT, Demand, Thing, demand_of
from .protocol import Card

Question = tuple[str, ...]
"""Texts, of which the first one is right."""
_COUNTED = 5
_DIRECTIONS = (LEFT, RIGHT, ABOVE, BELOW)


class ClipComposition:
    """Scores colours, positions and counts through a CLIP; 1 is everything as demanded."""

    differentiable = True

    def __init__(self, clip: CLIPScore, demands: Mapping[str, Demand]) -> None:
        """`demands` by `prompt_key`; other prompts are read by their words."""
        self.name = f"composition by {clip.name}"
        self.card = self.describe()
        self._clip, self._demands = clip, demands
        self.network: nn.Module = clip.network

    @staticmethod
    def describe() -> Card:
        """The card with the largest common CLIP's memory; smaller ones need less."""
        card = CLIPScore.describe()
        return Card(
            meaning="share of a prompt's things, counts, colours and places that a CLIP sees",
            typical=(0.3, 0.8),
            bounds=(0.0, 1.0),
            licence=card.licence,
            memory=card.memory,
            size=card.size,
        )

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1; ValueError for a prompt without things."""
        check_batch(self.name, images, prompts)
        check_prompts(self.name, prompts)
        asked = [questions(demand_of(prompt, self._demands)) for prompt in prompts]
        texts = {text: None for row in asked for question in row for text in question}
        places = {text: place for place, text in enumerate(texts)}
        logits = self._clip.compare(images, list(texts))
        scores = [
            torch.stack([_right(logits[row], question, places) for question in its]).mean()
            for row, its in enumerate(asked)
        ]
        total = torch.stack(scores) if scores else logits.new_zeros(0)
        return check_scores(self.name, total, len(images))


def questions(demand: Demand) -> list[Question]:
    """One for each fact of `demand`."""
    asked: list[Question] = []
    for thing in demand.things:
        asked.append((f"a photo of {_a(thing.noun)}", "a photo"))
        if thing.exact:
            if thing.count > len(NUMBERS):
                raise ValueError(
                    f"A CLIP cannot tell {thing.count} {nouns.plural(thing.noun)} from other "
                    f"numbers; ask for {len(NUMBERS)} at most, or use a detector."
                )
            counts = [thing.count, *(n for n in range(1, _COUNTED + 1) if n != thing.count)]
            asked.append(tuple(f"a photo of {_counted(n, thing)}" for n in counts))
        if thing.colour is not None:
            colours = [thing.colour, *(name for name in COLOURS if name != thing.colour)]
            asked.append(tuple(f"a photo of {_a(f'{name} {thing.noun}')}" for name in colours))
    for relation in demand.relations:
        first, second = (_a(demand.things[i].noun) for i in (relation.first, relation.second))
        kinds = [relation.kind, *(kind for kind in _DIRECTIONS if kind != relation.kind)]
        asked.append(tuple(f"a photo of {first} {kind} {second}" for kind in kinds))
    return asked


def _right(logits: Tensor, question: Question, places: Mapping[str, int]) -> Tensor:
    return logits[[places[text] for text in question]].softmax(0)[0]


def _counted(count: int, thing: Thing) -> str:
    noun = thing.noun if count == 1 else nouns.plural(thing.noun)
    return f"{NUMBERS[count - 1]} {noun}"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"
