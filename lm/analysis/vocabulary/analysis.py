"""What a vocabulary holds, and what becomes of a text in it: counts, bytes per token, merges that never paid."""

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
from lm.data.tokenizer.plain import Bytes, Chars, speller

# The parts of a vocabulary; each token is in one of them.
PARTS = (
    "single bytes",
    "words: a space and letters",
    "letters without a space",
    "numbers",
    "punctuation and symbols",
    "white space",
    "mixed",
    "parts of characters",  # bytes that are no UTF-8 by themselves
    "special",
)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer taken apart, by way of the file it is saved as."""

    tokenizer: Tokenizer
    kind: str
    spelling: list[bytes]  # (V,) the UTF-8 that each id stands for, of special tokens their name
    singles: frozenset[int]  # ids that stand for one byte each, whatever it means
    special: frozenset[int]  # ids of special tokens and of the one for what the vocabulary lacks
    merges: np.ndarray  # (M, 3) int64, in order of learning: left id, right id, id of the two together

    def __len__(self) -> int:
        return len(self.spelling)

    @cached_property
    def part(self) -> np.ndarray:
        """(V,) each id's place in PARTS."""
        parts = ["special" if i in self.special else "single bytes" if i in self.singles else part_of(spelling)
                 for i, spelling in enumerate(self.spelling)]  # fmt: skip
        return np.array([PARTS.index(part) for part in parts])

    @cached_property
    def longest(self) -> list[int]:
        """All ids but special ones, by the bytes they stand for."""
        return sorted(set(range(len(self))) - self.special, key=lambda i: (-len(self.spelling[i]), i))


@dataclass(frozen=True)
class Counts:
    """A text in a vocabulary."""

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
        """The entropy of the tokens' frequencies: what a token costs when all that is known is how often each comes."""
        p = self.ids[self.ids > 0] / self.tokens
        return float(-(p * np.log2(p)).sum()) + 0.0  # of one token alone 0, not -0

    @property
    def bits_per_byte(self) -> float:
        return self.bits_per_token / self.bytes_per_token


@dataclass(frozen=True)
class Part:
    name: str
    tokens: int  # of the vocabulary
    share: float
    text_tokens: int | None  # of the training text
    text_share: float | None
    examples: list[int]  # ids: of the most frequent, or where nothing was counted of the first


@dataclass(frozen=True)
class Rank:
    rank: int  # 1: the most frequent
    id: int
    token: str  # as people can read it
    hex: str  # the bytes it stands for
    count: int
    share: float  # of all tokens of the text
    cumulated: float  # share of this one and all before it


def take_apart(tokenizer: Tokenizer) -> Vocabulary:
    data = json.loads(tokenizer.to_json())
    model, added = data["model"], {token["id"]: token["content"] for token in data["added_tokens"]}
    written = json.dumps([data[key] for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    byte_level = "ByteLevel" in written
    kind = {"BPE": "byte-level BPE" if byte_level else "BPE"}.get(model["type"], model["type"])
    if isinstance(tokenizer, Bytes | Chars):
        kind = "bytes" if isinstance(tokenizer, Bytes) else "characters"
    vocab: dict[str, int] = model["vocab"]
    if not isinstance(vocab, dict):  # a Unigram's: pairs of token and score
        vocab = {token: i for i, (token, _) in enumerate(vocab)}
    special = set(tokenizer.special_tokens.values()) | {model.get("unk_id"), vocab.get(model.get("unk_token"))} - {None}
    prefix, spell = model.get("continuing_subword_prefix") or "", speller(data)
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


def part_of(spelling: bytes) -> str:
    """Which of PARTS a token belongs to that is neither special nor a single byte."""
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
    return "numbers" if classes == {"N"} else "punctuation and symbols" if classes <= {"P", "S"} and body else "mixed"


def count(stretches: Iterable[tuple[np.ndarray, int]], vocab_size: int) -> Counts:
    """Of a text that comes as ids (N,) and the bytes they stand for, as `lm.data.token_files.encode_split` gives it."""
    ids, size = np.zeros(vocab_size, np.int64), 0
    for stretch, of_bytes in stretches:
        ids += np.bincount(stretch, minlength=vocab_size)
        size += of_bytes
    if not ids.any():
        raise UserError("the tokenizer finds no token in the text")
    return Counts(ids, size)


def composition(vocabulary: Vocabulary, counts: Counts | None, examples: int = 8) -> list[Part]:
    """The parts that are not empty. Their tokens add up to the vocabulary."""
    times = counts.ids if counts else np.zeros(len(vocabulary), np.int64)
    found = []
    for i, name in enumerate(PARTS):
        ids = np.flatnonzero(vocabulary.part == i)
        if not len(ids):
            continue
        in_text = int(times[ids].sum()) if counts else None
        share = None if counts is None or in_text is None else in_text / counts.tokens
        used = ids[np.argsort(-times[ids], kind="stable")]
        used = used[times[used] > 0]
        shown = (used if len(used) else ids)[:examples].tolist()
        found.append(Part(name, len(ids), len(ids) / len(vocabulary), in_text, share, shown))
    return found


def made(vocabulary: Vocabulary, counts: Counts) -> np.ndarray | None:
    """(M,) how often encoding the text performs each merge: its tokens that stayed and those later merges took up.

    A merge of 0 or 1 saves a token once or never. None when it cannot be told: some token has several merges.
    """
    merges = vocabulary.merges.tolist()
    maker = {token: i for i, (_, _, token) in enumerate(merges)}
    if len(maker) < len(merges) or any(maker.get(x, -1) >= i for i, merge in enumerate(merges) for x in merge[:2]):
        return None
    times = counts.ids.tolist()
    for left, right, token in reversed(merges):
        times[left] += times[token]
        times[right] += times[token]
    return np.array([times[token] for _, _, token in merges], np.int64)


def once(vocabulary: Vocabulary, counts: Counts) -> int | None:
    """Merges that encoding the text performs once or never; None: there are none, or it cannot be told."""
    times = made(vocabulary, counts)
    return None if times is None or not len(times) else int((times <= 1).sum())


def unused(vocabulary: Vocabulary, counts: Counts) -> np.ndarray:
    """Ids that the text never has, special tokens aside."""
    return np.flatnonzero((counts.ids == 0) & (vocabulary.part != PARTS.index("special")))


def ranks(vocabulary: Vocabulary, counts: Counts) -> list[Rank]:
    """All ids by count, of equal ones the lower first."""
    order = np.argsort(-counts.ids, kind="stable")
    sums = np.cumsum(counts.ids[order])
    total, spelling = counts.tokens, vocabulary.spelling
    return [
        Rank(r, i, shown(spelling[i]), spelling[i].hex(), n, n / total, s / total)
        for r, (i, n, s) in enumerate(zip(order.tolist(), counts.ids[order].tolist(), sums.tolist(), strict=True), 1)
    ]


def shown(spelling: bytes, space: str = "␣", newline: str = "↵") -> str:
    """For people: `space` and `newline` are seen, → stands for a tab, <C3> for a byte that is no character."""

    def sign(c: str) -> str:
        if "\udc80" <= c <= "\udcff":  # what surrogateescape makes of bytes that are no UTF-8
            return f"<{ord(c) - 0xDC00:02X}>"
        if c.isprintable():
            return c if c != " " else space
        return {"\n": newline, "\t": "→"}.get(c) or (f"<{ord(c):02X}>" if c.isascii() else f"<U+{ord(c):04X}>")

    return "".join(map(sign, spelling.decode(errors="surrogateescape")))


def example(split: Split, chars: int = 160) -> str:
    """A few lines of a text, from behind its first newline: it may begin in the middle of a word."""
    piece = next(split.pieces())[0]
    lines = [line for line in piece.split("\n")[1:] if line.strip()]
    text = "\n".join(lines[:4]) or piece
    return text if len(text) <= chars else text[:chars].rsplit(maxsplit=1)[0]
