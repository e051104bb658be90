"""Subword tokenizers, on Hugging Face's `tokenizers`: byte pairs learnt from the corpus, GPT-2's, and any file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer

from lm.base.checks import Check
from lm.base.console import progress
from lm.base.errors import UserError
from lm.data.corpus.pieces import BORDER, Border, OutsideNames, in_pieces
from lm.data.corpus.text import ENDS, Text
from lm.data.download import Downloads
from lm.data.tokenizer.base import Tokenizer, TokenizerConfig, sample
from lm.data.tokenizer.plain import plain_from_json, speller

ENDLESS = re.compile(r"\S{1000}|\s{1000}")  # learning takes time by the square of a word's length: here it is cut
ENOUGH = 1 << 20  # characters of endless words to learn from: each word occurs once, and the trainer holds all of them
# a list of tokens spells line by line
LINES = {"type": "Split", "pattern": {"Regex": "\n+"}, "behavior": "MergedWithPrevious", "invert": False}


@dataclass
class BPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding with GPT-2's word splitting (Radford et al. 2019)."""

    vocab_size: int = 2048  # size of the vocabulary: 256 bytes, merges, special and reserved tokens together
    train_chars: int | None = 100_000_000  # learn from this many characters of the training text at most; null: all

    def check(self, check: Check) -> None:
        known = len(self.special_tokens) + self.reserved_tokens
        check.at_least("vocab_size", 256 + known)  # every byte has an id, so that any text can be spelt
        check.at_least("train_chars", 1)

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        specials = self.specials(text)
        learnt = self.vocab_size - len(specials)
        if learnt < 256:
            raise UserError(
                f"tokenizer.vocab_size={self.vocab_size} must be at least {256 + len(specials)}: 256 bytes and "
                f"{', '.join(specials)}"
            )
        hf = HFTokenizer(models.BPE())
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=learnt, initial_alphabet=alphabet, show_progress=False)
        whole = text.train.size if self.train_chars is None else min(text.train.size, self.train_chars)
        with progress("learning the vocabulary", whole) as advance:

            def pieces() -> Iterator[str]:
                endless = 0  # characters seen in pieces without a border
                for piece in sample(text.train, self.train_chars, names=self.left_out(text)):
                    advance(len(piece.encode()))
                    if len(piece) > 1000 and not BORDER.search(piece):
                        endless += len(piece)
                        if endless > ENOUGH:
                            continue
                    yield from shortened(piece)

            hf.train_from_iterator(pieces(), trainer)
        if taken := [name for name in specials if hf.token_to_id(name) is not None]:
            raise UserError(
                f"tokenizer.special_tokens: {', '.join(taken)} are byte pairs of the text; name them otherwise"
            )
        return Subword(hf, specials)


def shortened(piece: str) -> Iterator[str]:
    """A text in parts, none of which has an endless word."""
    start = 0
    for run in ENDLESS.finditer(piece):
        yield piece[start : run.end()]
        start = run.end()
    yield piece[start:]


class Subword:
    def __init__(self, hf: HFTokenizer, specials: Iterable[str] = ()) -> None:
        hf.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
        hf.encode_special_tokens = True  # text that spells a special token is text
        hf.no_truncation()
        hf.no_padding()
        if getattr(hf.model, "dropout", None):
            hf.model.dropout = None  # the same text, the same ids
        self.hf = hf
        used = set(hf.get_vocab().values())
        self.vocab_size = 1 + max(used, default=-1)
        if not self.vocab_size:
            raise UserError("its vocabulary is empty")
        self.unused_ids = [i for i in range(self.vocab_size) if i not in used]
        added = hf.get_added_tokens_decoder()
        self.special_tokens = {token.content: i for i, token in sorted(added.items()) if token.special}
        self.end_of_text = next((self.special_tokens[name] for name in ENDS if name in self.special_tokens), None)
        about = json.loads(hf.to_str())
        model, words = about["model"], about["pre_tokenizer"] or {}
        unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else model.get("unk_token")
        self.token_bytes = self._token_bytes(about, unknown)
        self._local, self._open = is_local(about["decoder"]), set(self.unused_ids)
        if any(step["type"] == "ByteFallback" for step in flat(about["decoder"])):
            # of bytes in a row, one that is not UTF-8 spoils all: a decoder of bytes waits for the end of the row
            self._open |= {i for token, i in hf.get_vocab().items() if re.fullmatch("<0x[0-9A-Fa-f]{2}>", token)}
        self.border: Border | None = None
        if self._cut(unknown) or about["normalizer"] is not None or len(added) > len(self.special_tokens):
            return  # words that are added without being special may reach over a border
        if words.get("type") == "ByteLevel" and words["use_regex"] and not words["add_prefix_space"]:
            border = BORDER
        elif words == LINES:
            border = re.compile(r"(?<=\n)(?=[^\n])")
        else:
            return
        before = [token.content for token in added.values() if token.lstrip or token.single_word]
        after = [token.content for token in added.values() if token.rstrip or token.single_word]
        self.border = OutsideNames(border, self.special_tokens, before, after)

    def _cut(self, unknown: str | None) -> list[str]:
        """Where text has special tokens that it would be spelt with, as Unigram and WordLevel do, cut inside them."""

        def spells(i: int) -> bool:
            try:
                return i in self.encode(self.decode([i]))
            except ValueError:
                return False

        names = [name for name, i in self.special_tokens.items() if name != unknown and spells(i)]
        if names:
            behind = Regex("|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names))
            split = pre_tokenizers.Split(behind, "merged_with_previous")
            words = self.hf.pre_tokenizer
            self.hf.pre_tokenizer = pre_tokenizers.Sequence([words, split]) if words else split
        return names

    def _token_bytes(self, about: dict[str, Any], unknown: str | None) -> np.ndarray:
        """From how the vocabulary writes its tokens."""
        added, spell = {t["id"] for t in about["added_tokens"]}, speller(about)

        def count(i: int) -> int:
            token = self.hf.id_to_token(i) or ""
            if token == unknown and i != self.end_of_text:
                return 1  # the fewest that it can have had
            if token in self.special_tokens:
                return 0
            return len(token.encode() if i in added else spell(token))

        return np.array([count(i) for i in range(self.vocab_size)], dtype=np.int64)

    @cached_property
    def _parsing(self) -> HFTokenizer:
        """The same tokenizer as Hugging Face opens it: text that spells a special token gives that token."""
        return HFTokenizer.from_str(self.to_json())

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *self.encode_batch(self._pieces(text), special)])

    def _pieces(self, text: str, size: int = 1 << 16) -> list[str]:
        """Cut a text, as Split.pieces does, for parallel work."""
        return list(in_pieces((text[at : at + size] for at in range(0, len(text), size)), self.border))

    def encode_batch(self, texts: list[str], special: bool = False) -> list[np.ndarray]:
        hf = self._parsing if special else self.hf
        try:
            found = hf.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # tokenizers raises bare Exception: words that are not there, and no token for those
            raise UserError(f"the tokenizer cannot spell the text: {error}") from error
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]

    def decode(self, ids: list[int]) -> str:
        return self.hf.decode(ids, skip_special_tokens=False)

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        return self.hf.decode_batch(batch, skip_special_tokens=False)

    def settled(self, ids: list[int]) -> int:
        count = len(ids) if self._local else 0
        while count and ids[count - 1] in self._open:
            count -= 1
        return count

    def to_json(self) -> str:
        return self.hf.to_str(pretty=False)


def is_local(decoder: dict[str, Any] | None) -> bool:
    """Tell whether the text of tokens stays as it is when others follow, but for half a character at its end.

    It does unless the decoder looks at the whole text once the tokens are joined.
    """
    joined = False
    for step in flat(decoder):
        if joined and step["type"] not in ("Fuse", "Strip"):
            return False
        joined = joined or step["type"] in ("Fuse", "ByteLevel")
    return True


def flat(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a decoder as a tokenizer.json writes it, those of sequences within it in their place."""
    if decoder and decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in flat(part)]
    return [decoder] if decoder else []


def spellings(tokenizer: Tokenizer) -> dict[int, bytes]:
    """What each id stands for: bytes of UTF-8, and of a special token its name behind a byte that UTF-8 never has."""
    about = json.loads(tokenizer.to_json())
    vocabulary, spell = about["model"]["vocab"], speller(about)
    if isinstance(vocabulary, list):  # of Unigram: pairs of a token and its score
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    found = {i: spell(token) for token, i in vocabulary.items()}
    found |= {token["id"]: token["content"].encode() for token in about["added_tokens"]}
    return found | {i: b"\xff" + name.encode() for name, i in tokenizer.special_tokens.items()}


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote, or Hugging Face. Raises UserError for anything else."""
    try:
        hf = HFTokenizer.from_str(text)
        return plain_from_json(hf.to_str()) or Subword(hf)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"not a tokenizer.json that Hugging Face's tokenizers opens: {error}") from error
