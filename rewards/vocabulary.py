"""The two tokenizers that the reward models read prompts with, from local files only.

transformers can hand out a tokenizer of five words without an error where the vocabulary is not at
hand; both are therefore proven on words whose numbers are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .batch import warn_of_long_prompts

CLIP_WORDS, CLIP_LENGTH = 49408, 77
BERT_WORDS = 30522
"""BLIP adds [DEC] (30522) and [ENC] (30523) behind them."""
_BERT_KNOWN = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}
_CLIP_PHOTO = [49406, 320, 1125, 49407]  # "a photo"


class ClipVocabulary:
    """Prompts → rows of 77 token numbers, by CLIP's byte pair encoding."""

    def __init__(self, name: str, folder: Path) -> None:
        """Read `vocab.json` and `merges.txt` of `folder`; ValueError where they are not CLIP's."""
        from transformers import AutoTokenizer

        self._name = name
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            known = self._tokenizer(["a photo"])["input_ids"][0] == _CLIP_PHOTO
        except Exception as error:
            raise ValueError(_no_clip(name, folder)) from error
        if len(self._tokenizer) != CLIP_WORDS or not known:
            raise ValueError(_no_clip(name, folder))

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Token numbers [B, 77], int64; a longer prompt is cut, with a warning."""
        whole = self._tokenizer(list(prompts))["input_ids"]
        warn_of_long_prompts(self._name, [len(ids) for ids in whole], CLIP_LENGTH)
        cut = [
            ids if len(ids) <= CLIP_LENGTH else [*ids[: CLIP_LENGTH - 1], ids[-1]] for ids in whole
        ]
        # What stands behind the end is never read: attention is causal.
        return torch.tensor([ids + [0] * (CLIP_LENGTH - len(ids)) for ids in cut])


class BertVocabulary:
    """Prompts → token numbers and mask, by BERT's word pieces, lower case."""

    def __init__(self, name: str, file: Path) -> None:
        """Read bert-base-uncased's `vocab.txt`; ValueError where it is another file."""
        from tokenizers import BertWordPieceTokenizer

        self._name = name
        try:
            self._tokenizer = BertWordPieceTokenizer(str(file), lowercase=True)
        except Exception as error:
            raise ValueError(_no_bert(name, file)) from error
        known = {word: self._tokenizer.token_to_id(word) for word in _BERT_KNOWN}
        if self._tokenizer.get_vocab_size() != BERT_WORDS or known != _BERT_KNOWN:
            raise ValueError(_no_bert(name, file))
        self._tokenizer.add_special_tokens(["[DEC]", "[ENC]"])

    def __call__(self, prompts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Token numbers and mask, int64 [B, length]; a longer prompt is cut, with a warning."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        lengths = [len(one.ids) for one in self._tokenizer.encode_batch(list(prompts))]
        warn_of_long_prompts(self._name, lengths, length)
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length)
        encoded = self._tokenizer.encode_batch(list(prompts))
        return (
            torch.tensor([one.ids for one in encoded]),
            torch.tensor([one.attention_mask for one in encoded]),
        )


def _no_clip(name: str, folder: Path) -> str:
    return (
        f"{name} cannot read prompts: {folder} does not hold CLIP's vocabulary (vocab.json and "
        f"merges.txt, {CLIP_WORDS} tokens); restore it, it comes with ComfyUI."
    )


def _no_bert(name: str, file: Path) -> str:
    return (
        f"{name} cannot read prompts: {file} is not the vocabulary of bert-base-uncased "
        f"({BERT_WORDS} lines); put that model's vocab.txt there."
    )
