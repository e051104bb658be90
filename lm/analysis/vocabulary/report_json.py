"""Reports on tokenizers as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lm.analysis.vocabulary import analysis
from lm.analysis.vocabulary.analysis import Vocabulary, format_token
from lm.analysis.vocabulary.report import Both, Candidate, try_split


def tokenizer_json(source: str, v: Vocabulary, counts: Both | None, texts: list[str]) -> dict[str, Any]:
    """Return the report on one tokenizer as JSON, with all merges and tokens."""
    times = analysis.count_merges(v, counts[0]) if counts else None
    used = [None] * len(v.merges) if times is None else times.tolist()
    merges = v.merges[:, 2].tolist()
    parts = [
        asdict(p) | {"examples": [format_token(v.spelling[i]) for i in p.examples]}
        for p in analysis.composition(v, counts and counts[0])
    ]
    return {
        "tokenizer": source, "kind": v.kind, "vocab_size": len(v), "special_tokens": v.tokenizer.special_tokens,
        **(text_json(v, counts) if counts else {}), "composition": parts,
        "longest": [{"id": i, "token": format_token(v.spelling[i]), "bytes": len(v.spelling[i])}
                    for i in v.longest_first[:50]],
        "merges": [{"order": n, "id": i, "token": format_token(v.spelling[i]), "used": times}
                   for n, (i, times) in enumerate(zip(merges, used, strict=True), 1)],
        "splits": [split_json(v, text) for text in texts],
        "ranks": [asdict(rank) for rank in analysis.rank_ids(v, counts[0])] if counts else None,
    }  # fmt: skip


def comparison_json(candidates: list[Candidate], text: str) -> dict[str, Any]:
    """Return the report on several tokenizers as JSON."""
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
    """Return the tokens of a text, or the error message, as JSON."""
    pieces = try_split(v, text)
    if isinstance(pieces, str):
        return {"text": text, "error": pieces}
    return {"text": text, "tokens": [{"id": i, "token": format_token(spelling)} for i, spelling in pieces]}


def text_json(v: Vocabulary, counts: Both) -> dict[str, Any]:
    """Return the counts of both texts as JSON."""
    texts = {
        name: {
            "bytes": c.bytes, "tokens": c.tokens, "bytes_per_token": c.bytes_per_token,
            "tokens_never_used": len(analysis.unused_ids(v, c)), "bits_per_token": c.bits_per_token,
            "bits_per_byte": c.bits_per_byte,
        }
        for name, c in zip(("train", "val"), counts, strict=True)
    }  # fmt: skip
    return {**texts, "merges_used_once_or_never": analysis.count_rare_merges(v, counts[0])}
