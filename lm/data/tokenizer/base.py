"""The interface of all tokenizers, and of the configs that build them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np

from lm.base.checks import Check
from lm.data.corpus.pieces import BORDER, Border, OutsideNames
from lm.data.corpus.text import END_OF_TEXT, Split, Text
from lm.data.download import Downloads

UNKNOWN = "<unk>"


class Tokenizer(Protocol):
    """A tokenizer with a vocabulary of V = `vocab_size` ids.

    Special tokens have 0 bytes, and in our own kinds of tokenizers the highest ids. `encode` never returns one, even if
    the text contains its name, unless it is called with special=True: then the name becomes the token, as in Hugging
    Face's `tokenizers`. The unknown token is an exception: it counts as one byte, and ordinary text may become it.
    """

    vocab_size: int
    token_bytes: np.ndarray  # (V,) the number of UTF-8 bytes that each id stands for, which bits per byte are based on
    special_tokens: dict[str, int]
    end_of_text: int | None  # the id that separates documents
    border: Border | None  # positions at which a text may be cut without changing its ids; None: nowhere
    unused_ids: list[int]  # ids below vocab_size that have no token

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        """Return the ids (N,) int64 of a text. Raises UserError when the vocabulary cannot express the text."""
        ...

    def encode_batch(self, texts: list[str], special: bool = False) -> list[np.ndarray]:
        """Return the ids of several texts."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids. Bytes that are not UTF-8 become U+FFFD."""
        ...

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        """Return the texts of several lists of ids."""
        ...

    def stable_prefix_length(self, ids: list[int]) -> int:
        """Return how many of the first ids decode to text that does not change when more ids follow.

        An incomplete character at the end of that text is excepted: it is one U+FFFD until it is complete.
        """
        ...

    def to_json(self) -> str:
        """Return the tokenizer in the JSON format of Hugging Face's `tokenizers`."""
        ...


@dataclass
class TokenizerConfig:
    """Settings that all tokenizers have."""

    # special tokens to add, e.g. ["<|user|>"]; they get the highest ids
    special_tokens: list[str] = field(default_factory=list)
    reserved_tokens: int = 0  # number of ids reserved for special tokens that a later training may name
    parse_special: bool = False  # text that spells a special token becomes that token; false: it is ordinary text

    def __post_init__(self) -> None:
        check = Check("tokenizer", self)
        check.at_least("reserved_tokens", 0)
        distinct = len(set(self.special_tokens)) == len(self.special_tokens)
        long = all(len(name) > 1 for name in self.special_tokens)  # single characters may be ordinary tokens
        check.require(distinct and long, "special_tokens", "be different, each of two characters or more")
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Check the ranges of the fields that a kind of tokenizer adds."""

    def identity(self) -> str:
        """Return a digest of the files that the config names, or "" without any. It is part of the cache key."""
        return ""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        """Build the tokenizer, from `text` if it is learned. The same text and config always give the same ids."""
        raise NotImplementedError

    def special_names(self, text: Text) -> list[str]:
        """Return the names of the special tokens in the order of their ids.

        The first one is <|endoftext|> if the text has documents.
        """
        named = [END_OF_TEXT] * text.documents + self.special_tokens
        return list(dict.fromkeys(named + [f"<|reserved_{i}|>" for i in range(self.reserved_tokens)]))

    def names_not_learned(self, text: Text) -> list[str]:
        """Return the special tokens that are parsed in the text, so that no vocabulary is learned from their names."""
        return self.special_names(text) if self.parse_special else []


@lru_cache(maxsize=8)
def any_of(*names: str) -> re.Pattern[str]:
    """Return a pattern that matches any of the names, preferably the longest. Without names it matches nothing."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")


def sample(split: Split, chars: int | None, size: int = 1 << 16, names: Iterable[str] = ()) -> Iterator[str]:
    """Yield the first `chars` characters of a text, in pieces, leaving out occurrences of `names`."""
    border, pattern, left = OutsideNames(BORDER, names), any_of(*names), chars
    for piece, _ in split.pieces(size, border):
        if left is not None and left <= 0:
            return
        part = piece if left is None else piece[:left]
        left = None if left is None else left - len(piece)
        yield from pattern.split(part)[::2]
