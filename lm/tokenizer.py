"""Text to ids and back: byte-level BPE, characters, bytes. All three lose nothing.

A tokenizer is saved as one JSON text: in the run as tokenizer.json, in every checkpoint, and as part of the cache key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm.check import Check
from lm.corpus import Text


class Tokenizer(Protocol):
    """`token_bytes` (V,) holds how many bytes of UTF-8 each id stands for: what bits per byte are counted with."""

    vocab_size: int
    token_bytes: np.ndarray

    def encode(self, text: str) -> np.ndarray: ...  # (N,) int64; ValueError for text it cannot spell

    def decode(self, ids: list[int]) -> str: ...

    def to_json(self) -> str: ...


@dataclass
class TokenizerConfig:
    def build(self, text: Text) -> Tokenizer:
        """Learn the vocabulary; the same text and config always give the same ids."""
        raise NotImplementedError


@dataclass
class BPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding with GPT-2's word splitting (Radford et al. 2019)."""

    vocab_size: int = 2048

    def __post_init__(self) -> None:
        check = Check("tokenizer", self)
        check.at_least("vocab_size", 256)  # every byte has an id, so that any text can be spelt
        check.done()

    def build(self, text: Text) -> Tokenizer:
        hf = HFTokenizer(models.BPE())
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=self.vocab_size, initial_alphabet=alphabet, show_progress=False)
        hf.train_from_iterator(pieces(text.train), trainer)
        return BPE(hf)


@dataclass
class CharConfig(TokenizerConfig):
    def build(self, text: Text) -> Tokenizer:
        # both splits, or a character that only validation has could not be spelt
        return Char("".join(sorted(set(text.train) | set(text.val))))


@dataclass
class ByteConfig(TokenizerConfig):
    def build(self, text: Text) -> Tokenizer:
        return Byte()


class BPE:
    def __init__(self, hf: HFTokenizer) -> None:
        self.hf = hf
        self.vocab_size = hf.get_vocab_size()
        # a byte-level token is spelt with one stand-in character per byte
        self.token_bytes = np.array([len(hf.id_to_token(i) or "") for i in range(self.vocab_size)])

    def encode(self, text: str) -> np.ndarray:
        parts = self.hf.encode_batch_fast(list(pieces(text)), add_special_tokens=False)
        return np.concatenate([np.array(part.ids, dtype=np.int64) for part in parts] or [np.zeros(0, np.int64)])

    def decode(self, ids: list[int]) -> str:
        return self.hf.decode(ids, skip_special_tokens=False)

    def to_json(self) -> str:
        return self.hf.to_str(pretty=False)


class Char:
    """One id per character that the corpus has, in code-point order."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = len(characters)
        self.token_bytes = np.array([len(c.encode()) for c in characters])
        self._codes = np.array([ord(c) for c in characters], dtype=np.uint32)  # sorted

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = np.searchsorted(self._codes, codes).clip(max=self.vocab_size - 1)
        if (unknown := self._codes[ids] != codes).any():
            missing = sorted({chr(c) for c in codes[unknown]})
            raise ValueError(
                f"the character vocabulary lacks {', '.join(map(repr, missing[:10]))}; it has only what "
                "the training corpus had"
            )
        return ids.astype(np.int64)

    def decode(self, ids: list[int]) -> str:
        return "".join(self.characters[i] for i in ids)

    def to_json(self) -> str:
        return json.dumps({"type": "char", "characters": self.characters})


class Byte:
    """The 256 byte values."""

    vocab_size = 256
    token_bytes = np.ones(256, dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def to_json(self) -> str:
        return json.dumps({"type": "byte"})


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote. Raises ValueError for anything else."""
    try:
        data = json.loads(text)
        kind = data.get("type")
        if kind == "byte":
            return Byte()
        return Char(data["characters"]) if kind == "char" else BPE(HFTokenizer.from_str(text))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"not a tokenizer of ours: {error}") from error


def pieces(text: str, size: int = 1 << 16) -> Iterator[str]:
    """Cut a long text for parallel work, only where a single newline stands between two visible characters.

    There a newline is a word of its own under GPT-2's splitting, so the pieces give the ids that the whole gives.
    """
    border = re.compile(r"(?<=\S\n)(?=\S)")
    start = 0
    while start < len(text):
        match = border.search(text, start + size)
        end = match.start() if match else len(text)
        yield text[start:end]
        start = end
