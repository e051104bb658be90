"""Similarity of token embeddings.

Shapes: C is the embedding width, H the number of heads, V the vocabulary size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer, spellings
from lm.data.tokenizer.base import UNKNOWN
from lm.run.checkpoint import Checkpoint

BLOCK = 1 << 22  # largest number of cosines held in memory at once


@dataclass(frozen=True)
class Pair:
    """Two tokens and the cosine of their embeddings."""

    head: int | None  # the head whose channels were compared; None: all channels
    a: str
    a_id: int
    b: str
    b_id: int
    cosine: float


def token_names(
    tokenizer: Tokenizer, ids: Iterable[int] | None = None, write: Callable[[bytes], str] | None = None
) -> list[str]:
    """Return a readable name for each of the `ids`, by default for all V tokens.

    `write` gives the name of a token from its bytes, by default `quote_token`: text is in quotes, and bytes that are
    not valid UTF-8 are written as \\xNN. Special tokens have their own name, and ids without a token their number.
    """
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    known, write = spellings(tokenizer), write or quote_token
    chosen = range(tokenizer.vocab_size) if ids is None else ids
    return [special.get(i) or (write(known[i]) if i in known else f"#{i}") for i in chosen]


def quote_token(spelling: bytes) -> str:
    """Return the bytes of a token in quotes, with every character that is not printable as an escape."""

    def escape(c: str) -> str:
        if "\udc80" <= c <= "\udcff":  # surrogateescape maps bytes that are not valid UTF-8 to this range
            return f"\\x{ord(c) - 0xDC00:02x}"
        if c.isprintable():
            return c if c != "\\" else r"\\"
        short = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
        return short.get(c) or (f"\\x{ord(c):02x}" if c.isascii() else f"\\u{ord(c):04x}")

    text = spelling.decode(errors="surrogateescape")
    mark = '"' if "'" in text and '"' not in text else "'"
    return mark + "".join(map(escape, text)) + mark


def token_id(name: str, tokenizer: Tokenizer) -> int:
    """Return the id of a token, given as `#17`, as the name of a special token, or as a text that is one token.

    Raises UserError for anything else.
    """
    if number := re.fullmatch(r"#(\d+)", name):
        if int(number[1]) >= tokenizer.vocab_size:
            raise UserError(f"{name} is not a token id; ids go from #0 to #{tokenizer.vocab_size - 1}")
        return int(number[1])
    if name in tokenizer.special_tokens:
        return tokenizer.special_tokens[name]
    ids, names = tokenizer.encode(name).tolist(), token_names(tokenizer)
    if not ids:
        raise UserError(f"{name!r} is 0 tokens, not one")
    if len(ids) > 1:
        parts = [f"{names[i]} (#{i})" for i in ids[:8]]
        if len(ids) > 8:
            parts.append("...")
        raise UserError(f"{name!r} is {len(ids)} tokens, not one: {', '.join(parts)}")
    # the tokenizer encodes text that is not in the vocabulary as one of these
    if names[ids[0]] in (*tokenizer.special_tokens, f"'{UNKNOWN}'"):
        raise UserError(f"the vocabulary has no token for {name!r}")
    return ids[0]


def nearest_tokens(source: Checkpoint, n: int, ids: Sequence[int] = (), by_head: bool = False) -> list[Pair]:
    """Return the `n` pairs of tokens whose embeddings have the highest cosine, or the `n` nearest tokens of each id.

    With `by_head`, compare the C/H channels of each head separately, as `cluster-tokens` of femtoGPT does
    (https://github.com/keyvank/femtoGPT).
    """
    names, H = token_names(source.tokenizer), source.model.config.n_head
    # V is the vocabulary size of the tokenizer. A padded model has more rows, which belong to no token.
    embedding = source.model.wte.weight.detach()[: len(names)].float()  # (V, C)
    found = []
    for head, part in enumerate(embedding.chunk(H, dim=1)) if by_head else [(None, embedding)]:
        unit = F.normalize(part, dim=1)
        pairs = [pair for i in ids for pair in nearest_rows(unit, i, n)] if ids else most_similar_rows(unit, n)
        found += [Pair(head, names[i], i, names[j], j, min(1.0, max(-1.0, cosine))) for i, j, cosine in pairs]
    return found


def nearest_rows(unit: Tensor, i: int, n: int) -> list[tuple[int, int, float]]:
    """Return (i, other row, dot product) for the `n` rows of `unit` (V, C) nearest to row `i`, highest first."""
    products = unit @ unit[i]  # (V,)
    products[i] = -math.inf
    values, rows = products.topk(min(n, len(unit) - 1))
    return [(i, j, value) for j, value in zip(rows.tolist(), values.tolist(), strict=True)]


def most_similar_rows(unit: Tensor, n: int) -> list[tuple[int, int, float]]:
    """Return (row, later row, dot product) for the `n` most similar pairs of rows of `unit` (V, C), highest first.

    The V x V products are computed in blocks of rows.
    """
    V = len(unit)
    size = max(1, BLOCK // V)
    best: list[tuple[int, int, float]] = []
    for start in range(0, V - 1, size):
        products = unit[start : start + size] @ unit[start:].mT  # (size, V - start)
        pairs = torch.ones_like(products, dtype=torch.bool).triu_(1)  # each pair once, no row with itself
        products.masked_fill_(~pairs, -math.inf)
        values, at = products.flatten().topk(min(n, int(pairs.sum())))
        width = products.size(1)
        best += [(start + i // width, start + i % width, v) for i, v in zip(at.tolist(), values.tolist(), strict=True)]
        best = sorted(best, key=lambda pair: (-pair[2], *pair[:2]))[:n]
    return best
