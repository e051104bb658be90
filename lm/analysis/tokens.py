"""Which tokens a model takes for alike. C width, H heads, V vocabulary."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer, spellings
from lm.data.tokenizer.base import UNKNOWN
from lm.run.checkpoint import Checkpoint

BLOCK = 1 << 22  # cosines that exist at a time


@dataclass(frozen=True)
class Pair:
    head: int | None  # whose channels of the embedding; None: all channels
    a: str
    a_id: int
    b: str
    b_id: int
    cosine: float


def token_names(tokenizer: Tokenizer) -> list[str]:
    """(V,) as people can read them: text in quotes, bytes that are no UTF-8 as \\xNN, special tokens without quotes."""
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    spelt = spellings(tokenizer)
    return [special.get(i) or (quote_token(spelt[i]) if i in spelt else f"#{i}") for i in range(tokenizer.vocab_size)]


def quote_token(spelling: bytes) -> str:
    def sign(c: str) -> str:
        if "\udc80" <= c <= "\udcff":  # what surrogateescape makes of bytes that are no UTF-8
            return f"\\x{ord(c) - 0xDC00:02x}"
        if c.isprintable():
            return c if c != "\\" else r"\\"
        known = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
        return known.get(c) or (f"\\x{ord(c):02x}" if c.isascii() else f"\\u{ord(c):04x}")

    text = spelling.decode(errors="surrogateescape")
    mark = '"' if "'" in text and '"' not in text else "'"
    return mark + "".join(map(sign, text)) + mark


def token_id(typed: str, tokenizer: Tokenizer) -> int:
    """Of `#17`, of a special token's name, of a text that is one token. Raises UserError for anything else."""
    if number := re.fullmatch(r"#(\d+)", typed):
        if int(number[1]) >= tokenizer.vocab_size:
            raise UserError(f"{typed}: ids go from #0 to #{tokenizer.vocab_size - 1}")
        return int(number[1])
    if typed in tokenizer.special_tokens:
        return tokenizer.special_tokens[typed]
    ids, called = tokenizer.encode(typed).tolist(), token_names(tokenizer)
    if len(ids) != 1:
        parts = ", ".join(f"{called[i]} (#{i})" for i in ids[:8]) + ", ..." * (len(ids) > 8)
        raise UserError(f"{typed!r} is {len(ids)} tokens, not one{': ' * bool(ids)}{parts}")
    if called[ids[0]] in (*tokenizer.special_tokens, f"'{UNKNOWN}'"):  # which stands for what the vocabulary lacks
        raise UserError(f"the vocabulary has no token for {typed!r}")
    return ids[0]


def nearest_tokens(source: Checkpoint, n: int, ids: Sequence[int] = (), by_head: bool = False) -> list[Pair]:
    """The `n` pairs of tokens whose embeddings have the highest cosine, or the `n` nearest of each of `ids`.

    `by_head` looks at the C/H channels of each head by themselves, as femtoGPT's `cluster-tokens` does.
    """
    called, H = token_names(source.tokenizer), source.model.config.n_head
    # V is the vocabulary of the tokenizer: a model may have more rows, which belong to no token
    embedding = source.model.wte.weight.detach()[: len(called)].float()  # (V, C)
    found = []
    for head, part in enumerate(embedding.chunk(H, dim=1)) if by_head else [(None, embedding)]:
        unit = F.normalize(part, dim=1)
        pairs = [pair for i in ids for pair in nearest(unit, i, n)] if ids else most_similar(unit, n)
        found += [Pair(head, called[i], i, called[j], j, min(1.0, max(-1.0, cosine))) for i, j, cosine in pairs]
    return found


def nearest(unit: Tensor, i: int, n: int) -> list[tuple[int, int, float]]:
    """(i, another row, their product), the highest first: unit (V, C)."""
    products = unit @ unit[i]  # (V,)
    products[i] = -math.inf
    values, rows = products.topk(min(n, len(unit) - 1))
    return [(i, j, value) for j, value in zip(rows.tolist(), values.tolist(), strict=True)]


def most_similar(unit: Tensor, n: int) -> list[tuple[int, int, float]]:
    """(row, later row, their product) of the `n` pairs with the highest: unit (V, C), in blocks of V x V."""
    V = len(unit)
    size = max(1, BLOCK // V)
    best: list[tuple[int, int, float]] = []
    for start in range(0, V - 1, size):
        products = unit[start : start + size] @ unit[start:].mT  # (size, V - start)
        pairs = torch.ones_like(products, dtype=torch.bool).triu_(1)  # each once, none with itself
        products.masked_fill_(~pairs, -math.inf)
        values, at = products.flatten().topk(min(n, int(pairs.sum())))
        width = products.size(1)
        best += [(start + i // width, start + i % width, v) for i, v in zip(at.tolist(), values.tolist(), strict=True)]
        best = sorted(best, key=lambda pair: (-pair[2], *pair[:2]))[:n]
    return best
