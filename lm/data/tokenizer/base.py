"""What every tokenizer can do, and how its config makes it."""

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
    """`token_bytes` (V,) holds how many bytes of UTF-8 each id stands for: what bits per byte are counted with.

    Special tokens have 0 bytes and in our own kinds the highest ids. `encode` never gives one, whatever the text says,
    unless it is called with special=True: then text that spells one gives it, as in Hugging Face's `tokenizers`. The
    token for what the vocabulary lacks is an exception: it counts as a byte, and any text may give it.
    """

    vocab_size: int
    token_bytes: np.ndarray
    special_tokens: dict[str, int]
    end_of_text: int | None  # the id that stands between documents
    border: Border | None  # where a text may be cut without changing an id; None: nowhere
    unused_ids: list[int]  # ids below vocab_size that have no token

    def encode(self, text: str, special: bool = False) -> np.ndarray: ...  # (N,) int64; ValueError: it cannot spell it

    def encode_batch(self, texts: list[str], special: bool = False) -> list[np.ndarray]: ...

    def decode(self, ids: list[int]) -> str: ...

    def decode_batch(self, batch: list[list[int]]) -> list[str]: ...

    def settled(self, ids: list[int]) -> int: ...  # so many first ids give text that no later id changes; but for half

    # a character at its end, which is one U+FFFD until it is whole

    def to_json(self) -> str: ...  # the file that Hugging Face's `tokenizers` opens


@dataclass
class TokenizerConfig:
    # special tokens to add, e.g. ["<|user|>"]; they get the highest ids
    special_tokens: list[str] = field(default_factory=list)
    reserved_tokens: int = 0  # number of ids reserved for special tokens that a later training may name
    parse_special: bool = False  # text that spells a special token becomes that token; false: it is ordinary text

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

    def left_out(self, text: Text) -> list[str]:
        """Return the special tokens that the text spells as such, so that no vocabulary is learned from their names."""
        return self.specials(text) if self.parse_special else []


@lru_cache(maxsize=8)
def any_of(*names: str) -> re.Pattern[str]:
    """Match any of the names, the longest where several begin; nothing at all without a name."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")


def sample(split: Split, chars: int | None, size: int = 1 << 16, names: Iterable[str] = ()) -> Iterator[str]:
    """Yield the first `chars` characters of a text, in pieces, without `names` where they are spelled."""
    border, spelled, left = OutsideNames(BORDER, names), any_of(*names), chars
    for piece, _ in split.pieces(size, border):
        if left is not None and left <= 0:
            return
        kept = piece if left is None else piece[:left]
        left = None if left is None else left - len(piece)
        yield from spelled.split(kept)[::2]
