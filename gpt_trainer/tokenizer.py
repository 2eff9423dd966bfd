"""Byte-pair encoding: text to token ids and back, and how many bytes of text each token stands for.

Byte-level, so every text can be written; trained on the training split only. Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

BOS = "<|bos|>"
"""Opens every row; it stands for no text and is left out of the metric."""

SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""Where merges may not cross: the published benchmark's pattern, GPT-4's with at most two digits together."""

TRAINING_CHARACTERS = 200_000_000
"""Text that a vocabulary is learned from, at most."""


class Tokenizer:
    """A trained byte-pair encoding."""

    def __init__(self, encoding: tokenizers.Tokenizer) -> None:
        self._encoding = encoding

    @classmethod
    def train(cls, documents: Iterable[str], vocabulary: int) -> Tokenizer:
        """Learn ``vocabulary`` tokens, BOS included, from ``documents``. Deterministic."""
        encoding = tokenizers.Tokenizer(models.BPE())
        encoding.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        encoding.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        encoding.train_from_iterator(_first_characters(documents, TRAINING_CHARACTERS), trainer)
        return cls(encoding)

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The inverse of :meth:`to_json`."""
        return cls(tokenizers.Tokenizer.from_str(text))

    def to_json(self) -> str:
        return self._encoding.to_str()

    def identity(self) -> str:
        """A hash of the merges."""
        return f"bpe{self.vocabulary}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:16]}"

    @property
    def vocabulary(self) -> int:
        return self._encoding.get_vocab_size()

    @property
    def bos(self) -> int:
        """Id of the token that opens a row."""
        token = self._encoding.token_to_id(BOS)
        assert token is not None  # training adds it
        return token

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without BOS."""
        return [encoding.ids for encoding in self._encoding.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))

    def token_bytes(self) -> list[int]:
        """Bytes of text that each token stands for; 0 for BOS. A byte-level token spells each byte as one character."""
        spelled = self._encoding.get_vocab()
        sizes = [0] * len(spelled)
        for spelling, token in spelled.items():
            sizes[token] = len(spelling) if token != self.bos else 0
        return sizes


def _first_characters(documents: Iterable[str], limit: int) -> Iterable[str]:
    total = 0
    for document in documents:
        yield document
        total += len(document)
        if total >= limit:
            return
