"""What is told of a tokenizer: sections for terminal and page, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lm.analysis.vocabulary import analysis
from lm.analysis.vocabulary.analysis import Counts, Vocabulary, shown
from lm.analysis.vocabulary.sections import Cell, Chart, Line, Pieces, Section, Splits, Table
from lm.base.errors import UserError

Both = tuple[Counts, Counts]  # of the training text and of the held-out one
SIGNS = "␣ stands for a space, ↵ for a newline, → for a tab, <C3> for a byte that is no character by itself."


@dataclass(frozen=True)
class Candidate:
    """One tokenizer of a comparison."""

    name: str
    vocabulary: Vocabulary
    counts: Both
    learning: float | None  # seconds to build it; None: it learns nothing
    encoding: float  # seconds to encode both texts, reading them included

    @property
    def label(self) -> str:
        return f"{self.name}, {len(self.vocabulary):,}"

    @property
    def bytes_per_second(self) -> float:
        return sum(c.bytes for c in self.counts) / self.encoding


def show(source: str, v: Vocabulary, counts: Both | None, texts: list[str], top: int) -> Iterator[Section]:
    """`top` is how many of the most frequent tokens to name; without `counts` there are none."""
    yield summary(source, v, counts)
    if counts:
        yield both_texts(v, counts)
    found = [attempted(v, text) for text in texts]
    yield Splits("How it splits", [(plural(p) if not isinstance(p, str) else "", p) for p in found])
    yield parts(v, counts)
    if len(v.merges):
        yield learnt(v)
    if v.longest and len(v.spelling[v.longest[0]].decode(errors="replace")) > 1:
        yield longest(v)
    if counts:
        yield frequencies(counts)
        yield ranking(v, counts[0], top)


def summary(source: str, v: Vocabulary, counts: Both | None) -> Table:
    special = ", ".join(f"{text} ({i})" for text, i in v.tokenizer.special_tokens.items())
    rows: list[list[Cell]] = [
        ["tokenizer", source],
        ["kind", v.kind],
        ["vocabulary", f"{len(v):,} tokens"],
        ["special tokens", special or "none"],
    ]
    if merges := len(v.merges):
        few = analysis.once(v, counts[0]) if counts else None
        used = "" if few is None else f", of which the training text uses {few:,} ({few / merges:.1%}) once or never"
        rows.append(["merges", f"{merges:,}{used}"])
    return Table("In short", "ll", ["", ""], rows)


def both_texts(v: Vocabulary, counts: Both) -> Table:
    rows: list[list[Cell]] = [
        [name, f"{c.bytes:,}", f"{c.tokens:,}", f"{c.bytes_per_token:.3f}", f"{len(analysis.unused(v, c)):,}",
         f"{c.bits_per_token:.3f}", f"{c.bits_per_byte:.3f}"]
        for name, c in zip(("training", "held-out"), counts, strict=True)
    ]  # fmt: skip
    columns = ["text", "bytes", "tokens", "bytes per token", "tokens never used", "bits per token", "bits per byte"]
    note = "Bits: the entropy of how often each token comes; no model does better that looks at nothing else."
    return Table("Texts", "lrrrrrr", columns, rows, note)


def parts(v: Vocabulary, counts: Both | None) -> Table:
    rows: list[list[Cell]] = [
        [p.name, f"{p.tokens:,}", f"{p.share:.1%}", "-" if p.text_share is None else f"{p.text_share:.1%}",
         names(v, p.examples)]
        for p in analysis.composition(v, counts and counts[0])
    ]  # fmt: skip
    examples = "the most frequent" if counts else "the first"
    columns = ["what the tokens are", "tokens", "of the vocabulary", "of the training text", examples]
    return Table("Vocabulary", "lrrrl", columns, rows, SIGNS, bars=(2, 3))


def learnt(v: Vocabulary, each: int = 16) -> Table:
    ids = v.merges[:, 2].tolist()
    starts = list(range(0, len(ids), each))
    if len(starts) > 4:
        starts = [0, each, (len(ids) - each) // 2, len(ids) - each]
    rows: list[list[Cell]] = [
        [f"{s + 1:,} to {min(s + each, len(ids)):,}", names(v, ids[s : s + each])] for s in starts
    ]
    return Table("What it learnt, in order", "rl", ["merges", "tokens"], rows)


def longest(v: Vocabulary, each: int = 12) -> Table:
    lengths = [n for n in dict.fromkeys(len(v.spelling[i]) for i in v.longest) if n > 1][:4]
    groups = [(n, [i for i in v.longest if len(v.spelling[i]) == n]) for n in lengths]
    rows: list[list[Cell]] = [[f"{n}", f"{len(ids)}", names(v, ids[:each])] for n, ids in groups]
    return Table("The longest tokens", "rrl", ["bytes", "how many", "the first"], rows)


def ranking(v: Vocabulary, train: Counts, top: int) -> Table:
    rows: list[list[Cell]] = [
        [f"{r.rank}", f"{r.id}", names(v, [r.id]), f"{r.count:,}", f"{r.share:.2%}", f"{r.cumulated:.1%}"]
        for r in analysis.ranks(v, train)[:top]
    ]
    columns = ["rank", "id", "token", "count", "share", "cumulated"]
    return Table("The most frequent tokens of the training text", "rrlrrr", columns, rows, bars=(4,))


def frequencies(counts: Both) -> Chart:
    lines = []
    for name, c in zip(("training text", "held-out text"), counts, strict=True):
        values = np.sort(c.ids[c.ids > 0])[::-1]
        places = np.unique(np.geomspace(1, len(values), 400).astype(int))
        lines.append(Line(name, [(float(r), float(values[r - 1])) for r in places]))
    first = lines[0].points[0][1]
    last = min(first, lines[0].points[-1][0])
    lines.append(Line("count of the first / rank", [(1.0, first), (last, first / last)], dashed=True))
    return Chart("How often each token comes", "rank of the token", "count", lines, log_y=True)


def compare(candidates: list[Candidate], text: str) -> Iterator[Section]:
    rows: list[list[Cell]] = []
    for c in candidates:
        train, val = c.counts
        few = analysis.once(c.vocabulary, train)
        rows.append([
            c.name, f"{len(c.vocabulary):,}", "-" if c.learning is None else f"{c.learning:.2f}", f"{c.encoding:.2f}",
            f"{c.bytes_per_second / 1e6:.1f}", f"{train.tokens:,}", f"{train.bytes_per_token:.3f}",
            f"{val.bytes_per_token:.3f}", "-" if few is None else f"{few:,}",
            f"{len(analysis.unused(c.vocabulary, train)):,}", f"{train.bits_per_byte:.3f}",
        ])  # fmt: skip
    columns = [
        "tokenizer", "vocabulary", "seconds\nto learn", "seconds\nto encode", "MB/s", "tokens\nof training\ntext",
        "bytes per\ntoken,\ntraining", "bytes per\ntoken,\nheld-out", "merges\nused once\nor never",
        "tokens\nnever\nused", "unigram\nbits per\nbyte",
    ]  # fmt: skip
    note = "Used: in the training text. Encoding is that of both texts, reading them included. Unigram: the entropy of "
    note += "how often each token of the training text comes; no model does better that looks at nothing else."
    yield Table("Side by side", "lrrrrrrrrrr", columns, rows, note)
    yield sizes(candidates)
    found = [(c.label, attempted(c.vocabulary, text)) for c in candidates]
    yield Splits("The same text, as each splits it", [(f"{label}: {plural(p)}" if not isinstance(p, str) else label, p)
                                                      for label, p in found])  # fmt: skip


def sizes(candidates: list[Candidate]) -> Chart:
    """Bytes per token against the vocabulary; tokenizers of one kind are joined by a line."""
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
    return Chart("What a larger vocabulary saves", "vocabulary", "bytes per token", lines, ticks=ticks)


def attempted(v: Vocabulary, text: str) -> Pieces | str:
    """How `text` is split, or why it cannot be spelt."""
    try:
        return [(i, v.spelling[i]) for i in v.tokenizer.encode(text).tolist()]
    except UserError as error:
        return str(error)


def plural(found: Pieces) -> str:
    return f"{len(found)} token{'s' * (len(found) != 1)}"


def names(v: Vocabulary, ids: list[int], longest: int = 32) -> list[str]:
    """For people: the middle of what is longer is left out."""
    full = [shown(v.spelling[i]) for i in ids]
    half = longest // 2
    return [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in full]


def show_json(source: str, v: Vocabulary, counts: Both | None, texts: list[str]) -> dict[str, Any]:
    """All there is, not the first few."""
    times = analysis.made(v, counts[0]) if counts else None
    used = [None] * len(v.merges) if times is None else times.tolist()
    merges = v.merges[:, 2].tolist()
    parts = [
        asdict(p) | {"examples": [shown(v.spelling[i]) for i in p.examples]}
        for p in analysis.composition(v, counts and counts[0])
    ]
    return {
        "tokenizer": source, "kind": v.kind, "vocab_size": len(v), "special_tokens": v.tokenizer.special_tokens,
        **(text_json(v, counts) if counts else {}), "composition": parts,
        "longest": [{"id": i, "token": shown(v.spelling[i]), "bytes": len(v.spelling[i])} for i in v.longest[:50]],
        "merges": [{"order": n, "id": i, "token": shown(v.spelling[i]), "used": times}
                   for n, (i, times) in enumerate(zip(merges, used, strict=True), 1)],
        "splits": [split_json(v, text) for text in texts],
        "ranks": [asdict(rank) for rank in analysis.ranks(v, counts[0])] if counts else None,
    }  # fmt: skip


def compare_json(candidates: list[Candidate], text: str) -> dict[str, Any]:
    rows = [
        {
            "name": c.name, "vocab_size": len(c.vocabulary), "learning_s": c.learning, "encoding_s": c.encoding,
            "bytes_per_second": c.bytes_per_second, "merges": len(c.vocabulary.merges),
            **text_json(c.vocabulary, c.counts), "split": split_json(c.vocabulary, text),
        }
        for c in candidates
    ]  # fmt: skip
    return {"text": text, "tokenizers": rows}


def split_json(v: Vocabulary, text: str) -> dict[str, Any]:
    found = attempted(v, text)
    if isinstance(found, str):
        return {"text": text, "error": found}
    return {"text": text, "tokens": [{"id": i, "token": shown(spelling)} for i, spelling in found]}


def text_json(v: Vocabulary, counts: Both) -> dict[str, Any]:
    texts = {
        name: {
            "bytes": c.bytes, "tokens": c.tokens, "bytes_per_token": c.bytes_per_token,
            "tokens_never_used": len(analysis.unused(v, c)), "bits_per_token": c.bits_per_token,
            "bits_per_byte": c.bits_per_byte,
        }
        for name, c in zip(("train", "val"), counts, strict=True)
    }  # fmt: skip
    return {**texts, "merges_used_once_or_never": analysis.once(v, counts[0])}
