"""A text in passages, by how hard each is for a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Passage:
    token: int  # its place in the text
    byte: int | None  # the same in UTF-8; None where the tokenizer does not say what its tokens stand for
    tokens: int
    nats: float  # a token
    sqrt_1_minus_p: float  # the mean of sqrt(1 - p), by which femtoGPT ordered its curriculum: no token counts above 1
    text: str


def passages(ids: np.ndarray, nats: np.ndarray, tokenizer: Tokenizer, size: int, text_bytes: int) -> list[Passage]:
    """A text (N,) in passages of `size` tokens, in its order, by nats (N-1,) of every token but the first.

    What is left at the end is a passage too, or where it is less than half of one, a part of the last.
    """
    starts = list(range(0, len(ids), size))
    if len(starts) > 1 and 2 * (len(ids) - starts[-1]) < size:
        starts.pop()
    before = np.concatenate(([0], np.cumsum(tokenizer.token_bytes[ids])))  # (N+1,) bytes
    known = before[-1] == text_bytes
    nats = nats.astype(np.float64)
    roots = np.sqrt(-np.expm1(-nats))
    found = []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        scored = slice(max(0, start - 1), end - 1)
        byte, text = int(before[start]) if known else None, tokenizer.decode(ids[start:end].tolist())
        means = float(nats[scored].mean()), float(roots[scored].mean())
        found.append(Passage(start, byte, end - start, *means, text))
    return found
