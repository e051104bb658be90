"""Passages of a text and the loss of a model on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Passage:
    """A part of a text and how hard it is for a model."""

    token: int  # index of its first token in the text
    byte: int | None  # offset in the UTF-8 text; None if the bytes of the tokens do not add up to the text
    tokens: int
    nats: float  # mean per token
    sqrt_1_minus_p: float  # mean of sqrt(1 - p), at most 1 per token; femtoGPT ordered its curriculum by it
    text: str


def split_passages(
    ids: np.ndarray, nats: np.ndarray, tokenizer: Tokenizer, size: int, text_bytes: int
) -> list[Passage]:
    """Split a text into passages of `size` tokens, in the order of the text.

    Tokens that remain at the end form a shorter passage. Fewer than half of `size` are added to the last passage
    instead.

    Args:
        ids: the tokens of the text, (N,).
        nats: the loss of every token except the first, (N-1,).
        size: tokens per passage.
        text_bytes: length of the text in bytes.
    """
    starts = list(range(0, len(ids), size))
    if len(starts) > 1 and 2 * (len(ids) - starts[-1]) < size:
        starts.pop()
    before = np.concatenate(([0], np.cumsum(tokenizer.token_bytes[ids])))  # (N+1,) bytes
    bytes_known = before[-1] == text_bytes
    nats = nats.astype(np.float64)
    roots = np.sqrt(-np.expm1(-nats))
    found = []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        scored = slice(max(0, start - 1), end - 1)
        byte, text = int(before[start]) if bytes_known else None, tokenizer.decode(ids[start:end].tolist())
        means = float(nats[scored].mean()), float(roots[scored].mean())
        found.append(Passage(start, byte, end - start, *means, text))
    return found
