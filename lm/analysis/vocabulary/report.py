"""The sections of reports on tokenizers, for the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lm.analysis.vocabulary import analysis
from lm.analysis.vocabulary.analysis import Counts, Vocabulary, format_token
from lm.analysis.vocabulary.sections import Cell, Chart, Line, Pieces, Section, Splits, Table
from lm.base.errors import UserError

Both = tuple[Counts, Counts]  # of the training text and of the held-out text
SIGNS = "␣ is a space, ↵ a newline, → a tab, and <C3> a byte that is not a character by itself."


@dataclass(frozen=True)
class Candidate:
    """One tokenizer of a comparison."""

    name: str
    vocabulary: Vocabulary
    counts: Both
    learning: float | None  # seconds to build the tokenizer; None: it learns nothing
    encoding: float  # seconds to read and encode both texts

    @property
    def label(self) -> str:
        return f"{self.name}, {len(self.vocabulary):,}"

    @property
    def bytes_per_second(self) -> float:
        return sum(c.bytes for c in self.counts) / self.encoding


def tokenizer_sections(
    source: str, v: Vocabulary, counts: Both | None, texts: list[str], top: int
) -> Iterator[Section]:
    """Yield the report on one tokenizer. `top` is the number of most frequent tokens to list if there are `counts`."""
    yield summary_table(source, v, counts)
    if counts:
        yield text_table(v, counts)
    splits = [try_split(v, text) for text in texts]
    yield Splits("Example splits", [("" if isinstance(s, str) else format_token_count(s), s) for s in splits])
    yield part_table(v, counts)
    if len(v.merges):
        yield merge_table(v)
    if v.longest_first and len(v.spelling[v.longest_first[0]].decode(errors="replace")) > 1:
        yield longest_table(v)
    if counts:
        yield frequency_chart(counts)
        yield rank_table(v, counts[0], top)


def summary_table(source: str, v: Vocabulary, counts: Both | None) -> Table:
    """Return the kind, size, special tokens and merges of a tokenizer."""
    special = ", ".join(f"{text} ({i})" for text, i in v.tokenizer.special_tokens.items())
    rows: list[list[Cell]] = [
        ["tokenizer", source],
        ["kind", v.kind],
        ["vocabulary", f"{len(v):,} tokens"],
        ["special tokens", special or "none"],
    ]
    if merges := len(v.merges):
        rare = analysis.count_rare_merges(v, counts[0]) if counts else None
        used = "" if rare is None else f", of which the training text uses {rare:,} ({rare / merges:.1%}) at most once"
        rows.append(["merges", f"{merges:,}{used}"])
    return Table("Summary", "ll", ["", ""], rows)


def text_table(v: Vocabulary, counts: Both) -> Table:
    """Return the counts of the training text and the held-out text."""
    rows: list[list[Cell]] = [
        [name, f"{c.bytes:,}", f"{c.tokens:,}", f"{c.bytes_per_token:.3f}", f"{len(analysis.unused_ids(v, c)):,}",
         f"{c.bits_per_token:.3f}", f"{c.bits_per_byte:.3f}"]
        for name, c in zip(("training", "held-out"), counts, strict=True)
    ]  # fmt: skip
    columns = ["text", "bytes", "tokens", "bytes per token", "unused tokens", "bits per token", "bits per byte"]
    note = "Bits: the entropy of the token frequencies, the lowest possible loss of a model that knows only them."
    return Table("Texts", "lrrrrrr", columns, rows, note)


def part_table(v: Vocabulary, counts: Both | None) -> Table:
    """Return the parts of the vocabulary with examples."""
    rows: list[list[Cell]] = [
        [p.name, f"{p.tokens:,}", f"{p.share:.1%}", "-" if p.text_share is None else f"{p.text_share:.1%}",
         format_tokens(v, p.examples)]
        for p in analysis.composition(v, counts and counts[0])
    ]  # fmt: skip
    examples = "most frequent" if counts else "first"
    columns = ["type of tokens", "tokens", "of the vocabulary", "of the training text", examples]
    return Table("Vocabulary", "lrrrl", columns, rows, SIGNS, bars=(2, 3))


def merge_table(v: Vocabulary, each: int = 16) -> Table:
    """Return merged tokens in the order of learning: some of the first, middle and last ones, `each` in a row."""
    ids = v.merges[:, 2].tolist()
    starts = list(range(0, len(ids), each))
    if len(starts) > 4:
        starts = [0, each, (len(ids) - each) // 2, len(ids) - each]
    rows: list[list[Cell]] = [
        [f"{s + 1:,} to {min(s + each, len(ids)):,}", format_tokens(v, ids[s : s + each])] for s in starts
    ]
    return Table("Merges in the order of learning", "rl", ["merges", "tokens"], rows)


def longest_table(v: Vocabulary, each: int = 12) -> Table:
    """Return the longest tokens: those of the four greatest lengths, at most `each` of a length."""
    lengths = [n for n in dict.fromkeys(len(v.spelling[i]) for i in v.longest_first) if n > 1][:4]
    groups = [(n, [i for i in v.longest_first if len(v.spelling[i]) == n]) for n in lengths]
    rows: list[list[Cell]] = [[f"{n}", f"{len(ids)}", format_tokens(v, ids[:each])] for n, ids in groups]
    return Table("Longest tokens", "rrl", ["bytes", "number", "first"], rows)


def rank_table(v: Vocabulary, train: Counts, top: int) -> Table:
    """Return the `top` most frequent tokens of the training text."""
    rows: list[list[Cell]] = [
        [f"{r.rank}", f"{r.id}", format_tokens(v, [r.id]), f"{r.count:,}", f"{r.share:.2%}", f"{r.cumulated:.1%}"]
        for r in analysis.rank_ids(v, train)[:top]
    ]
    columns = ["rank", "id", "token", "count", "share", "cumulative"]
    return Table("Most frequent tokens of the training text", "rrlrrr", columns, rows, bars=(4,))


def frequency_chart(counts: Both) -> Chart:
    """Return the counts of the tokens by rank, compared with Zipf's law (count proportional to 1 / rank)."""
    lines = []
    for name, c in zip(("training text", "held-out text"), counts, strict=True):
        values = np.sort(c.ids[c.ids > 0])[::-1]
        places = np.unique(np.geomspace(1, len(values), 400).astype(int))
        lines.append(Line(name, [(float(r), float(values[r - 1])) for r in places]))
    first = lines[0].points[0][1]
    last = min(first, lines[0].points[-1][0])
    lines.append(Line("count of the first / rank", [(1.0, first), (last, first / last)], dashed=True))
    return Chart("Token frequencies", "rank of the token", "count", lines, log_y=True)


def comparison_sections(candidates: list[Candidate], text: str) -> Iterator[Section]:
    """Yield the report on several tokenizers, which also split `text`."""
    rows: list[list[Cell]] = []
    for c in candidates:
        train, val = c.counts
        rare = analysis.count_rare_merges(c.vocabulary, train)
        rows.append([
            c.name, f"{len(c.vocabulary):,}", "-" if c.learning is None else f"{c.learning:.2f}", f"{c.encoding:.2f}",
            f"{c.bytes_per_second / 1e6:.1f}", f"{train.tokens:,}", f"{train.bytes_per_token:.3f}",
            f"{val.bytes_per_token:.3f}", "-" if rare is None else f"{rare:,}",
            f"{len(analysis.unused_ids(c.vocabulary, train)):,}", f"{train.bits_per_byte:.3f}",
        ])  # fmt: skip
    columns = [
        "tokenizer", "vocabulary", "seconds\nto learn", "seconds\nto encode", "MB/s", "tokens\nof training\ntext",
        "bytes per\ntoken,\ntraining", "bytes per\ntoken,\nheld-out", "merges\nused at\nmost once",
        "unused\ntokens", "unigram\nbits per\nbyte",
    ]  # fmt: skip
    note = "Merges and unused tokens: of the training text. Seconds to encode: both texts, including reading them. "
    note += (
        "Unigram: the entropy of the token frequencies of the training text, the lowest possible loss of a model that "
    )
    note += "knows only them."
    yield Table("Comparison", "lrrrrrrrrrr", columns, rows, note)
    yield size_chart(candidates)
    splits: list[tuple[str, Pieces | str]] = []
    for c in candidates:
        pieces = try_split(c.vocabulary, text)
        label = c.label if isinstance(pieces, str) else f"{c.label}: {format_token_count(pieces)}"
        splits.append((label, pieces))
    yield Splits("Splits of the same text", splits)


def size_chart(candidates: list[Candidate]) -> Chart:
    """Return bytes per token as a function of vocabulary size, with a line for each kind of tokenizer."""
    groups: dict[str, list[Candidate]] = {}
    for c in sorted(candidates, key=lambda c: len(c.vocabulary)):
        groups.setdefault(c.name, []).append(c)
    lines = []
    for kind, group in groups.items():
        for i, name in enumerate(("training text", "held-out text")):
            points = [(float(len(c.vocabulary)), c.counts[i].bytes_per_token) for c in group]
            labels = [*[""] * (len(group) - 1), kind] if i == 0 and len(groups) > 1 else []
            lines.append(Line(name, points, marked=True, labels=labels))
    ticks = sorted({x for line in lines for x, _ in line.points})
    return Chart("Compression by vocabulary size", "vocabulary", "bytes per token", lines, ticks=ticks)


def try_split(v: Vocabulary, text: str) -> Pieces | str:
    """Return the tokens of `text`, or the error message if it cannot be encoded."""
    try:
        return [(i, v.spelling[i]) for i in v.tokenizer.encode(text).tolist()]
    except UserError as error:
        return str(error)


def format_token_count(pieces: Pieces) -> str:
    """Return the number of tokens in words."""
    return "1 token" if len(pieces) == 1 else f"{len(pieces)} tokens"


def format_tokens(v: Vocabulary, ids: list[int], longest: int = 32) -> list[str]:
    """Return tokens in readable form, without the middle of those longer than `longest` characters."""
    full = [format_token(v.spelling[i]) for i in ids]
    half = longest // 2
    return [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in full]
