"""Statistics of a vocabulary and of a text that it encodes: parts, counts, bytes per token, and unused merges."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lm.base.errors import UserError
from lm.data.corpus import Split
from lm.data.tokenizer.base import Tokenizer
from lm.data.tokenizer.plain import Bytes, Chars, make_speller

# The parts of a vocabulary; each token belongs to exactly one.
PARTS = (
    "single bytes",
    "words: a space and letters",
    "letters without a space",
    "numbers",
    "punctuation and symbols",
    "white space",
    "mixed",
    "parts of characters",  # bytes that are not valid UTF-8 by themselves
    "special",
)


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a tokenizer, read from the file in which it is saved. V tokens, M merges."""

    tokenizer: Tokenizer
    kind: str
    spelling: list[bytes]  # (V,) the UTF-8 bytes of each id; those of a special token are its name
    singles: frozenset[int]  # ids of single bytes
    special: frozenset[int]  # ids of special tokens and of the unknown token
    merges: np.ndarray  # (M, 3) int64, in the order of learning: left id, right id, id of the merged token

    def __len__(self) -> int:
        return len(self.spelling)

    @cached_property
    def part_index(self) -> np.ndarray:
        """The position in PARTS of each id, (V,)."""

        def part(i: int) -> str:
            if i in self.special:
                return "special"
            return "single bytes" if i in self.singles else classify_token(self.spelling[i])

        return np.array([PARTS.index(part(i)) for i in range(len(self))])

    @cached_property
    def longest_first(self) -> list[int]:
        """All ids except special ones, in descending order of their number of bytes."""
        return sorted(set(range(len(self))) - self.special, key=lambda i: (-len(self.spelling[i]), i))


@dataclass(frozen=True)
class Counts:
    """Token counts of a text."""

    ids: np.ndarray  # (V,) int64: how often each id occurs
    bytes: int  # of the text, in UTF-8

    @property
    def tokens(self) -> int:
        return int(self.ids.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def bits_per_token(self) -> float:
        """Entropy of the token frequencies: the cost of a token if only the frequencies are known."""
        p = self.ids[self.ids > 0] / self.tokens
        return float(-(p * np.log2(p)).sum()) + 0.0  # if there is only one token: 0 instead of -0

    @property
    def bits_per_byte(self) -> float:
        return self.bits_per_token / self.bytes_per_token


@dataclass(frozen=True)
class Part:
    """A part of the vocabulary."""

    name: str  # one of PARTS
    tokens: int  # number of ids of the vocabulary
    share: float  # of the vocabulary
    text_tokens: int | None  # number of tokens of the training text
    text_share: float | None  # of the training text
    examples: list[int]  # the most frequent ids, or without counts the first ids


@dataclass(frozen=True)
class Rank:
    """A row of the table of token frequencies."""

    rank: int  # 1: the most frequent
    id: int
    token: str  # in readable form
    hex: str  # its bytes
    count: int
    share: float  # of all tokens of the text
    cumulated: float  # share of this token and all more frequent ones


def read_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Read the tokens and merges of a tokenizer from its JSON text."""
    data = json.loads(tokenizer.to_json())
    model, added = data["model"], {token["id"]: token["content"] for token in data["added_tokens"]}
    settings = json.dumps([data[key] for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    byte_level = "ByteLevel" in settings
    kind = {"BPE": "byte-level BPE" if byte_level else "BPE"}.get(model["type"], model["type"])
    if isinstance(tokenizer, Bytes | Chars):
        kind = "bytes" if isinstance(tokenizer, Bytes) else "characters"
    vocab: dict[str, int] = model["vocab"]
    if not isinstance(vocab, dict):  # of a Unigram model: pairs of token and score
        vocab = {token: i for i, (token, _) in enumerate(vocab)}
    special = set(tokenizer.special_tokens.values()) | {model.get("unk_id"), vocab.get(model.get("unk_token"))} - {None}
    prefix, spell = model.get("continuing_subword_prefix") or "", make_speller(data)
    spelling, singles = [b""] * tokenizer.vocab_size, set()
    for token, i in vocab.items():
        spelling[i] = spell(token)
        if len(spelling[i]) == 1 and (byte_level or (model.get("byte_fallback") and token.startswith("<0x"))):
            singles.add(i)
    for i, content in added.items():
        spelling[i] = content.encode()
        singles.discard(i)
    merges = [(vocab[a], vocab[b], vocab[a + b.removeprefix(prefix)]) for a, b in model.get("merges", [])]
    return Vocabulary(
        tokenizer, kind, spelling, frozenset(singles), frozenset(special), np.array(merges, np.int64).reshape(-1, 3)
    )


def classify_token(spelling: bytes) -> str:
    """Return which of PARTS a token belongs to, if it is neither special nor a single byte."""
    try:
        text = spelling.decode()
    except UnicodeDecodeError:
        return "parts of characters"
    if text.isspace():
        return "white space"
    body = text.removeprefix(" ")
    classes = {unicodedata.category(c)[0] for c in body}
    if classes <= {"L", "M"} and body:  # letters and the marks that combine with them
        return "words: a space and letters" if body != text else "letters without a space"
    if classes == {"N"}:
        return "numbers"
    return "punctuation and symbols" if classes <= {"P", "S"} and body else "mixed"


def count_ids(parts: Iterable[tuple[np.ndarray, int]], vocab_size: int) -> Counts:
    """Count the ids of a text.

    `parts` are pairs of ids (N,) and the number of bytes of their text, as `lm.data.token_files.encode_split` yields
    them. Raises UserError when there are no ids.
    """
    ids, size = np.zeros(vocab_size, np.int64), 0
    for part, part_bytes in parts:
        ids += np.bincount(part, minlength=vocab_size)
        size += part_bytes
    if not ids.any():
        raise UserError("the tokenizer produces no token for the text")
    return Counts(ids, size)


def composition(vocabulary: Vocabulary, counts: Counts | None, examples: int = 8) -> list[Part]:
    """Return the parts of the vocabulary that are not empty. `examples` is the maximum number of examples of each."""
    times = counts.ids if counts else np.zeros(len(vocabulary), np.int64)
    parts = []
    for i, name in enumerate(PARTS):
        ids = np.flatnonzero(vocabulary.part_index == i)
        if not len(ids):
            continue
        in_text = int(times[ids].sum()) if counts else None
        share = None if counts is None or in_text is None else in_text / counts.tokens
        used = ids[np.argsort(-times[ids], kind="stable")]
        used = used[times[used] > 0]
        first = (used if len(used) else ids)[:examples].tolist()
        parts.append(Part(name, len(ids), len(ids) / len(vocabulary), in_text, share, first))
    return parts


def count_merges(vocabulary: Vocabulary, counts: Counts) -> np.ndarray | None:
    """Return (M,): how often encoding the text performs each merge.

    The number is that of the resulting tokens which remain, plus those that later merges use up. A merge with 0 or 1
    saves at most one token. Return None if the numbers are not unique because several merges give the same token.
    """
    merges = vocabulary.merges.tolist()
    merge_of = {token: i for i, (_, _, token) in enumerate(merges)}
    if len(merge_of) < len(merges) or any(merge_of.get(x, -1) >= i for i, pair in enumerate(merges) for x in pair[:2]):
        return None
    times = counts.ids.tolist()
    for left, right, token in reversed(merges):
        times[left] += times[token]
        times[right] += times[token]
    return np.array([times[token] for _, _, token in merges], np.int64)


def count_rare_merges(vocabulary: Vocabulary, counts: Counts) -> int | None:
    """Return the number of merges that encoding the text performs at most once. None: no merges, or not unique."""
    times = count_merges(vocabulary, counts)
    return None if times is None or not len(times) else int((times <= 1).sum())


def unused_ids(vocabulary: Vocabulary, counts: Counts) -> np.ndarray:
    """Return the ids that do not occur in the text, without special tokens."""
    return np.flatnonzero((counts.ids == 0) & (vocabulary.part_index != PARTS.index("special")))


def rank_ids(vocabulary: Vocabulary, counts: Counts) -> list[Rank]:
    """Rank all ids by count, and ids with the same count by their number."""
    order = np.argsort(-counts.ids, kind="stable")
    sums = np.cumsum(counts.ids[order])
    total, spelling = counts.tokens, vocabulary.spelling
    return [
        Rank(r, i, format_token(spelling[i]), spelling[i].hex(), n, n / total, s / total)
        for r, (i, n, s) in enumerate(zip(order.tolist(), counts.ids[order].tolist(), sums.tolist(), strict=True), 1)
    ]


def format_token(spelling: bytes, space: str = "␣", newline: str = "↵") -> str:
    """Return a token in readable form: with `space`, `newline`, → for a tab, and <C3> for an incomplete character."""

    def sign(c: str) -> str:
        if "\udc80" <= c <= "\udcff":  # surrogateescape decodes invalid UTF-8 to these characters
            return f"<{ord(c) - 0xDC00:02X}>"
        if c.isprintable():
            return c if c != " " else space
        return {"\n": newline, "\t": "→"}.get(c) or (f"<{ord(c):02X}>" if c.isascii() else f"<U+{ord(c):04X}>")

    return "".join(map(sign, spelling.decode(errors="surrogateescape")))


def example_text(split: Split, chars: int = 160) -> str:
    """Return a few lines of a text after its first newline, because it may begin in the middle of a word."""
    piece = next(split.pieces())[0]
    lines = [line for line in piece.split("\n")[1:] if line.strip()]
    text = "\n".join(lines[:4]) or piece
    return text if len(text) <= chars else text[:chars].rsplit(maxsplit=1)[0]
