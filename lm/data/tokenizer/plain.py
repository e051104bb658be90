"""Tokenizers of bytes, ASCII characters and characters, which look up each token in a table."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.data.corpus.pieces import ANYWHERE, Border, OutsideNames
from lm.data.corpus.text import Text
from lm.data.download import Downloads
from lm.data.tokenizer.base import END_OF_TEXT, UNKNOWN, Tokenizer, TokenizerConfig, any_of, sample

CODES = 0x110000  # Unicode's code points
LOWERCASE = normalizers.Lowercase()


@dataclass
class ByteConfig(TokenizerConfig):
    """One token per byte value (256). It encodes any text and learns nothing."""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        return Bytes(self.special_names(text))


@dataclass
class AsciiConfig(TokenizerConfig):
    """The tokenizer of femtoGPT: the 100 printable ASCII characters, including white space, and one unknown token."""

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        return Chars("".join(sorted(string.printable)), self.special_names(text), unknown=True)


@dataclass
class CharConfig(TokenizerConfig):
    """One token per character of the corpus, in code-point order."""

    unknown: bool = False  # add a token for characters that the vocabulary lacks; false: refuse them
    min_frequency: int = 1  # characters that occur less often become unknown
    lowercase: bool = False  # convert to lower case, character by character
    train_chars: int | None = None  # learn from this many characters of the training text at most; null: all

    def check(self, check: Check) -> None:
        check.at_least("min_frequency", 1)
        check.at_least("train_chars", 1)

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        unknown = self.unknown or self.min_frequency > 1
        names = self.names_not_learned(text)
        counts = self.count_characters(sample(text.train, self.train_chars, 1 << 20, names))
        if not unknown:  # characters that occur only in the validation text need a token too
            counts = counts + self.count_characters(sample(text.val, None, 1 << 20, names))
        characters = "".join(map(chr, np.flatnonzero(counts >= self.min_frequency)))
        if not characters:
            raise UserError(
                f"no character of the text occurs tokenizer.min_frequency={self.min_frequency} times; lower it"
            )
        return Chars(characters, self.special_names(text), unknown, self.lowercase)

    def count_characters(self, pieces: Iterable[str]) -> np.ndarray:
        """Return (CODES,): how often each code point occurs in the text."""
        counts = np.zeros(CODES, dtype=np.int64)
        for piece in pieces:
            part = np.bincount(code_points(to_lowercase(piece) if self.lowercase else piece))
            counts[: len(part)] += part  # a corpus may have millions of documents, so no array of CODES for each
        return counts


class TableTokenizer:
    """Base class of Bytes and Chars: a base vocabulary, followed by special tokens."""

    def __init__(self, base_bytes: list[int], specials: list[str], unknown: bool = False) -> None:
        names = list(dict.fromkeys([UNKNOWN] * unknown + specials))
        self.base = len(base_bytes)
        self.unknown = self.base if unknown else None
        self.special_tokens = {name: self.base + i for i, name in enumerate(names)}
        self.end_of_text = self.special_tokens.get(END_OF_TEXT)
        self.vocab_size = self.base + len(names)
        # the unknown token counts as one byte, the minimum that a character can have
        self.token_bytes = np.array(base_bytes + [int(name == UNKNOWN) for name in names], dtype=np.int64)
        self.border: Border | None = OutsideNames(ANYWHERE, names)
        self.unused_ids: list[int] = []

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        raise NotImplementedError

    def encode_batch(self, texts: list[str], special: bool = False) -> list[np.ndarray]:
        return [self.encode_with_special(text) if special else self.encode(text) for text in texts]

    def encode_with_special(self, text: str) -> np.ndarray:
        """Encode a text in which the name of a special token means that token."""
        parts = any_of(*self.special_tokens).split(text)  # text, name, text, ..., text
        named = self.special_tokens
        return np.concatenate([[named[part]] if i % 2 else self.encode(part) for i, part in enumerate(parts)])

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        return [self.decode(ids) for ids in batch]

    def stable_prefix_length(self, ids: list[int]) -> int:
        return len(ids)


class Bytes(TableTokenizer):
    """One id per byte of UTF-8, then special tokens."""

    def __init__(self, specials: Iterable[str] = ()) -> None:
        super().__init__([1] * 256, list(specials))

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        if special:
            return self.encode_with_special(text)
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: list[int]) -> str:
        names = {i: name.encode() for name, i in self.special_tokens.items()}
        return b"".join(bytes((i,)) if i < 256 else names[i] for i in ids).decode(errors="replace")

    def to_json(self) -> str:
        hf = HFTokenizer(models.BPE(vocab={c: b for b, c in enumerate(byte_letters())}, merges=[]))
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        hf.decoder = decoders.ByteLevel()
        hf.add_special_tokens(list(self.special_tokens))
        return hf.to_str(pretty=False)


class Chars(TableTokenizer):
    """One id per character of `characters`, then, if `unknown`, one id for all other characters."""

    def __init__(
        self, characters: str, specials: Iterable[str] = (), unknown: bool = False, lowercase: bool = False
    ) -> None:
        super().__init__([len(c.encode()) for c in characters], list(specials), unknown)
        self.characters, self.lowercase = characters, lowercase
        codes = code_points(characters)
        self._ids = np.full(int(codes.max(initial=0)) + 2, -1 if self.unknown is None else self.unknown)
        self._ids[codes] = np.arange(len(codes))  # the last element stands for all higher code points

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        if special:
            return self.encode_with_special(text)
        codes = code_points(to_lowercase(text) if self.lowercase else text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if self.unknown is None and (ids < 0).any():
            missing = sorted({chr(c) for c in codes[ids < 0]})
            raise UserError(
                f"the character vocabulary lacks {', '.join(map(repr, missing[:10]))}; it has only the characters "
                "of its training text (with tokenizer.unknown=true all others become <unk>)"
            )
        return ids

    def decode(self, ids: list[int]) -> str:
        names = {i: "\ufffd" if name == UNKNOWN else name for name, i in self.special_tokens.items()}
        return "".join(self.characters[i] if i < self.base else names[i] for i in ids)

    def to_json(self) -> str:
        vocab = {c: i for i, c in enumerate(self.characters)}
        if self.unknown is not None:
            vocab[UNKNOWN] = self.unknown
        hf = HFTokenizer(models.BPE(vocab=vocab, merges=[], unk_token=None if self.unknown is None else UNKNOWN))
        if self.lowercase:
            hf.normalizer = LOWERCASE
        hf.decoder = decoders.Fuse()
        hf.add_special_tokens(list(self.special_tokens))
        return hf.to_str(pretty=False)


def plain_from_json(text: str) -> Tokenizer | None:
    """Return the Bytes or Chars tokenizer that saves exactly this file, or None."""
    data = json.loads(text)
    model = data["model"]
    if model["type"] != "BPE" or model["merges"]:
        return None
    characters = "".join(c for c in sorted(model["vocab"], key=model["vocab"].get) if len(c) == 1)
    specials = [t["content"] for t in sorted(data["added_tokens"], key=lambda t: t["id"])]
    unknown, lowercase = model["unk_token"] == UNKNOWN, data["normalizer"] is not None
    for tokenizer in (Bytes(specials), Chars(characters, specials, unknown, lowercase)):
        if tokenizer.to_json() == text:
            return tokenizer
    return None


def code_points(text: str) -> np.ndarray:
    """Return the code points (N,) uint32 of a text."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def to_lowercase(text: str) -> str:
    """Convert to lower case, each character independently.

    str.lower is not usable: its result for a sigma depends on adjacent characters, which may be in another piece, and
    its version of Unicode depends on that of Python.
    """
    return text.lower() if text.isascii() else LOWERCASE.normalize_str(text)


def make_speller(about: dict[str, Any]) -> Callable[[str], bytes]:
    """Return a function that converts a token, as the Hugging Face file `about` writes it, to its bytes."""
    model = about["model"]
    settings = json.dumps([about[key] for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    letters = {letter: bytes((byte,)) for byte, letter in enumerate(byte_letters())}

    def spell(token: str) -> bytes:
        if "ByteLevel" in settings:
            return b"".join(letters.get(c) or c.encode() for c in token)
        if model.get("byte_fallback") and (byte := re.fullmatch("<0x([0-9A-F]{2})>", token)):
            return bytes.fromhex(byte[1])
        text = token.removeprefix(prefix).removesuffix(suffix)
        return (text.replace("▁", " ") if "▁" in settings else text).encode()

    return spell


@lru_cache(maxsize=1)
def byte_letters() -> list[str]:
    """Return the printable character that byte-level BPE files use for each of the 256 bytes (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {b: chr(b) for b in plain}
    others = (b for b in range(256) if b not in letters)
    letters |= {b: chr(256 + i) for i, b in enumerate(others)}
    return [letters[b] for b in range(256)]
