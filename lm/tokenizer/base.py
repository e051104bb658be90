"""What every tokenizer can do, and how its config makes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lm.check import Check
from lm.corpus.text import END_OF_TEXT, Text
from lm.download import Downloads

UNKNOWN = "<unk>"


class Tokenizer(Protocol):
    """`token_bytes` (V,) holds how many bytes of UTF-8 each id stands for: what bits per byte are counted with.

    Special tokens have 0 bytes, in our own kinds the highest ids, and `encode` never gives one, whatever the text says;
    but for the one that stands for what the vocabulary lacks, which counts as a byte.
    """

    vocab_size: int
    token_bytes: np.ndarray
    special_tokens: dict[str, int]
    end_of_text: int | None  # the id that stands between documents
    border: re.Pattern[str] | None  # where a text may be cut without changing an id; None: nowhere

    def encode(self, text: str) -> np.ndarray: ...  # (N,) int64; ValueError for text it cannot spell

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]: ...

    def decode(self, ids: list[int]) -> str: ...

    def decode_batch(self, batch: list[list[int]]) -> list[str]: ...

    def to_json(self) -> str: ...  # the file that Hugging Face's `tokenizers` opens


@dataclass
class TokenizerConfig:
    special_tokens: list[str] = field(default_factory=list)  # e.g. ["<|user|>"]; ids behind all others
    reserved_tokens: int = 0  # room for special tokens that a later training may name

    def __post_init__(self) -> None:
        check = Check("tokenizer", self)
        check.at_least("reserved_tokens", 0)
        distinct = len(set(self.special_tokens)) == len(self.special_tokens)
        long = all(len(name) > 1 for name in self.special_tokens)  # a character may be in the vocabulary itself
        check.that(distinct and long, "special_tokens", "be different, each of two characters or more")
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Range checks of the fields a kind of tokenizer adds."""

    def identity(self) -> str:
        """A digest of the files it reads, if any."""
        return ""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        """Learn the vocabulary; the same text and config always give the same ids."""
        raise NotImplementedError

    def specials(self, text: Text) -> list[str]:
        """In the order of their ids. A text of documents brings the end-of-text token with it."""
        named = [END_OF_TEXT] * text.documents + self.special_tokens
        return list(dict.fromkeys(named + [f"<|reserved_{i}|>" for i in range(self.reserved_tokens)]))


def sample(text: Text, chars: int | None, size: int = 1 << 16) -> Iterator[str]:
    """The first `chars` characters of the training text, in pieces."""
    left = chars
    for piece, _ in text.train.pieces(size):
        if left is None:
            yield piece
        elif left > 0:
            yield piece[:left]
            left -= len(piece)
        else:
            return
