"""Subword tokenizers based on Hugging Face's `tokenizers`: BPE learned from the corpus, GPT-2's, and any file."""

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
from lm.data.tokenizer.plain import make_speller, plain_from_json

# the time to learn a word is quadratic in its length, so longer words are cut
LONG_WORD = re.compile(r"\S{1000}|\s{1000}")
MAX_LONG_CHARS = 1 << 20  # characters of such words to learn from: all are different, and the trainer keeps them
# the pre-tokenizer of a list of tokens, which encodes line by line
SPLIT_LINES = {"type": "Split", "pattern": {"Regex": "\n+"}, "behavior": "MergedWithPrevious", "invert": False}


@dataclass
class BPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding with GPT-2's word splitting (Radford et al. 2019)."""

    vocab_size: int = 2048  # size of the vocabulary: 256 bytes, merges, special and reserved tokens together
    train_chars: int | None = 100_000_000  # learn from this many characters of the training text at most; null: all

    def check(self, check: Check) -> None:
        known = len(self.special_tokens) + self.reserved_tokens
        check.at_least("vocab_size", 256 + known)  # every byte has an id, so that any text can be encoded
        check.at_least("train_chars", 1)

    def build(self, text: Text, downloads: Downloads) -> Tokenizer:
        specials = self.special_names(text)
        learned = self.vocab_size - len(specials)
        if learned < 256:
            raise UserError(
                f"tokenizer.vocab_size={self.vocab_size} must be at least {256 + len(specials)}: 256 bytes and "
                f"{', '.join(specials)}"
            )
        hf = HFTokenizer(models.BPE())
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=learned, initial_alphabet=alphabet, show_progress=False)
        whole = text.train.size if self.train_chars is None else min(text.train.size, self.train_chars)
        with progress("learning the vocabulary", whole) as advance:

            def pieces() -> Iterator[str]:
                endless = 0  # characters so far in pieces without a border
                for piece in sample(text.train, self.train_chars, names=self.names_not_learned(text)):
                    advance(len(piece.encode()))
                    if len(piece) > 1000 and not BORDER.search(piece):
                        endless += len(piece)
                        if endless > MAX_LONG_CHARS:
                            continue
                    yield from cut_long_words(piece)

            hf.train_from_iterator(pieces(), trainer)
        if taken := [name for name in specials if hf.token_to_id(name) is not None]:
            raise UserError(
                f"tokenizer.special_tokens: the vocabulary learned from the text already has {', '.join(taken)}; "
                "choose other names"
            )
        return Subword(hf, specials)


def cut_long_words(piece: str) -> Iterator[str]:
    """Split a text into parts so that no part has a word of more than 1000 characters."""
    start = 0
    for run in LONG_WORD.finditer(piece):
        yield piece[start : run.end()]
        start = run.end()
    yield piece[start:]


class Subword:
    """Wrapper of a tokenizer of Hugging Face's `tokenizers`, to which it adds the special tokens `specials`."""

    def __init__(self, hf: HFTokenizer, specials: Iterable[str] = ()) -> None:
        hf.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
        hf.encode_special_tokens = True  # the name of a special token is ordinary text
        hf.no_truncation()
        hf.no_padding()
        if getattr(hf.model, "dropout", None):
            hf.model.dropout = None  # so that the same text always gives the same ids
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
        self.token_bytes = self._count_token_bytes(about, unknown)
        self._local, self._open = is_local(about["decoder"]), set(self.unused_ids)
        if any(step["type"] == "ByteFallback" for step in flatten_decoder(about["decoder"])):
            # one invalid byte changes the text of all byte tokens in a row, so none is final before the row ends
            self._open |= {i for token, i in hf.get_vocab().items() if re.fullmatch("<0x[0-9A-Fa-f]{2}>", token)}
        self.border: Border | None = None
        if self._split_names(unknown) or about["normalizer"] is not None or len(added) > len(self.special_tokens):
            return  # added tokens that are not special may extend across a border
        if words.get("type") == "ByteLevel" and words["use_regex"] and not words["add_prefix_space"]:
            border = BORDER
        elif words == SPLIT_LINES:
            border = re.compile(r"(?<=\n)(?=[^\n])")
        else:
            return
        before = [token.content for token in added.values() if token.lstrip or token.single_word]
        after = [token.content for token in added.values() if token.rstrip or token.single_word]
        self.border = OutsideNames(border, self.special_tokens, before, after)

    def _split_names(self, unknown: str | None) -> list[str]:
        """Split the names of special tokens in the text, if the model would encode them as those tokens. Return them.

        This is the case for Unigram and WordLevel models.
        """

        def encodes(i: int) -> bool:
            try:
                return i in self.encode(self.decode([i]))
            except ValueError:
                return False

        names = [name for name, i in self.special_tokens.items() if name != unknown and encodes(i)]
        if names:
            first_letter = Regex("|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names))
            split = pre_tokenizers.Split(first_letter, "merged_with_previous")
            words = self.hf.pre_tokenizer
            self.hf.pre_tokenizer = pre_tokenizers.Sequence([words, split]) if words else split
        return names

    def _count_token_bytes(self, about: dict[str, Any], unknown: str | None) -> np.ndarray:
        """Return (V,): the number of bytes of each token, derived from the notation of the vocabulary."""
        added, spell = {t["id"] for t in about["added_tokens"]}, make_speller(about)

        def count(i: int) -> int:
            token = self.hf.id_to_token(i) or ""
            if token == unknown and i != self.end_of_text:
                return 1  # the minimum that an unknown text can have
            if token in self.special_tokens:
                return 0
            return len(token.encode() if i in added else spell(token))

        return np.array([count(i) for i in range(self.vocab_size)], dtype=np.int64)

    @cached_property
    def _parsing_tokenizer(self) -> HFTokenizer:
        """The same tokenizer as Hugging Face loads it: the name of a special token becomes that token."""
        return HFTokenizer.from_str(self.to_json())

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *self.encode_batch(self._pieces(text), special)])

    def _pieces(self, text: str, size: int = 1 << 16) -> list[str]:
        """Cut a text in the same way as Split.pieces, for parallel encoding."""
        return list(in_pieces((text[at : at + size] for at in range(0, len(text), size)), self.border))

    def encode_batch(self, texts: list[str], special: bool = False) -> list[np.ndarray]:
        hf = self._parsing_tokenizer if special else self.hf
        try:
            encodings = hf.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # tokenizers raises bare Exception if it needs an unknown token and has none
            raise UserError(f"the tokenizer cannot encode the text: {error}") from error
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: list[int]) -> str:
        return self.hf.decode(ids, skip_special_tokens=False)

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        return self.hf.decode_batch(batch, skip_special_tokens=False)

    def stable_prefix_length(self, ids: list[int]) -> int:
        count = len(ids) if self._local else 0
        while count and ids[count - 1] in self._open:
            count -= 1
        return count

    def to_json(self) -> str:
        return self.hf.to_str(pretty=False)


def is_local(decoder: dict[str, Any] | None) -> bool:
    """Return whether the text of tokens stays the same when others follow, except for an incomplete last character.

    This is false only if a step of the decoder processes the joined text of all tokens.
    """
    joined = False
    for step in flatten_decoder(decoder):
        if joined and step["type"] not in ("Fuse", "Strip"):
            return False
        joined = joined or step["type"] in ("Fuse", "ByteLevel")
    return True


def flatten_decoder(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a decoder in a tokenizer.json, with nested sequences flattened."""
    if decoder and decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in flatten_decoder(part)]
    return [decoder] if decoder else []


def spellings(tokenizer: Tokenizer) -> dict[int, bytes]:
    """Return the UTF-8 bytes of each id. Those of a special token are FF, which UTF-8 never has, and its name."""
    about = json.loads(tokenizer.to_json())
    vocabulary, spell = about["model"]["vocab"], make_speller(about)
    if isinstance(vocabulary, list):  # of a Unigram model: pairs of a token and its score
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    spelled = {i: spell(token) for token, i in vocabulary.items()}
    spelled |= {token["id"]: token["content"].encode() for token in about["added_tokens"]}
    return spelled | {i: b"\xff" + name.encode() for name, i in tokenizer.special_tokens.items()}


def from_json(text: str) -> Tokenizer:
    """Load a tokenizer from the JSON text that `to_json` or Hugging Face wrote. Raises UserError for other texts."""
    try:
        hf = HFTokenizer.from_str(text)
        return plain_from_json(hf.to_str()) or Subword(hf)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"not a tokenizer.json that Hugging Face's tokenizers can open: {error}") from error
