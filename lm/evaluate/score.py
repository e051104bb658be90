"""Score every token of a text with a model, and compute losses per token, byte, character and word.

Shapes: N tokens of a text, B windows of T tokens at a time, C width, V vocabulary, n positions that are scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.errors import UserError
from lm.data.batches import document_numbers
from lm.data.tokenizer import Tokenizer, spellings
from lm.model import GPT
from lm.model.loss import LossConfig


@dataclass(frozen=True)
class Scores:
    """Scores of every token of a text except the first, in order; arrays (N - 1,)."""

    nats: np.ndarray  # float32
    top1: np.ndarray  # bool: the token was the most probable one; of equally probable tokens, the lowest id counts
    top5: np.ndarray  # bool
    position: np.ndarray  # int32: number of tokens before it in its window, 1 .. T

    @property
    def loss(self) -> float:
        """The mean nats per token, summed in float64."""
        return float(self.nats.mean(dtype=np.float64))


@torch.inference_mode()
def score(
    model: GPT,
    ids: np.ndarray,
    stride: int | None = None,
    batch_size: int = 16,
    end_of_text: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Scores:
    """Predict every token of `ids` (N,) once, except the first, on the device and in the precision of the weights.

    The windows are those of `lm.data.batches.ValBatches`, so the mean equals the val/loss of a run; tokens at the
    beginning of a window have little context. With a `stride` below model.block_size = T, each window begins `stride`
    tokens after the previous one, and only its last `stride` tokens count: each of them has a context of at least
    T - stride + 1 tokens, except at the beginning of the text. The cost grows by T / stride.

    Give `end_of_text` to keep attention within documents, as data.respect_documents does. `progress` is called with
    the number of tokens done. Raises UserError for a stride out of range and for a text of fewer than two tokens.
    """
    assert not model.training
    block, last = model.config.block_size, len(ids) - 1
    stride = block if stride is None else stride
    if not 1 <= stride <= block:
        raise UserError(f"--stride={stride} must be at least 1 and at most model.block_size={block}")
    if last < 1:
        count = "1 token" if len(ids) == 1 else f"{len(ids)} tokens"
        raise UserError(f"the text has {count}; evaluation needs at least 2, because the first cannot be predicted")
    T, device = min(block, last), model.wte.weight.device
    ends = np.minimum(np.arange(T, last + stride, stride), last)  # the last token that each window predicts
    begins = np.array([0, *ends[:-1]])  # the last token that was predicted before the window
    chunk = LossConfig().tokens_per_chunk(model.vocab_size)
    assert chunk
    scores = Scores(*(np.empty(last, dtype) for dtype in (np.float32, bool, bool, np.int32)))
    for k in range(0, len(ends), batch_size):
        end, begin = ends[k : k + batch_size, None], begins[k : k + batch_size, None]  # (B, 1)
        at = end - T + np.arange(T + 1)  # (B, T + 1)
        rows = torch.from_numpy(ids[at].astype(np.int64)).to(device)
        counted = at[:, 1:] > begin  # (B, T)
        x = model.features(rows[:, :-1], document_numbers(rows[:, :-1], end_of_text))  # (B, T, C)
        keep = torch.from_numpy(counted).to(device)
        x, y = x[keep], rows[:, 1:][keep]  # (n, C), (n,)
        parts = [rank_targets(model.logits(a).float(), b) for a, b in zip(x.split(chunk), y.split(chunk), strict=True)]
        nats, rank = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        here = slice(int(begin[0, 0]), int(end[-1, 0]))
        scores.nats[here], scores.top1[here], scores.top5[here] = nats, rank < 1, rank < 5
        scores.position[here] = counted.nonzero()[1] + 1
        progress(len(nats))
    return scores


def rank_targets(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nats of the targets (n,), and the number of tokens that the logits (n, V) rank before each: (n,)."""
    own = logits.gather(1, targets[:, None])  # (n, 1)
    lower = torch.arange(logits.size(1), device=logits.device) < targets[:, None]  # (n, V)
    rank = (logits > own).sum(1) + ((logits == own) & lower).sum(1)
    return F.cross_entropy(logits, targets, reduction="none"), rank


def summarize(scores: Scores, ids: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Compute the figures of a text over all tokens except the first; None for a mean over nothing.

    Bits per byte divide by the number of bytes that the tokens stand for (Tokenizer.token_bytes, as val/bpb does).
    Models with different tokenizers are therefore comparable on the same text, unless one tokenizer loses a part of
    it: `unknown` counts the tokens that stand for unknown text. Perplexity per word divides the same total by
    WikiText's number of words: what white space separates, and each line's end, its <eos> (Merity et al. 2016,
    arXiv:1609.07843).
    """
    tokens, nats = len(scores.nats), float(scores.nats.sum(dtype=np.float64))
    spelling = Spelling.of(tokenizer)
    uses = np.bincount(ids[1:], minlength=tokenizer.vocab_size)  # (V,)
    n_bytes, n_chars = int(uses @ tokenizer.token_bytes), int(uses @ spelling.chars)
    n_words = count_words(ids, tokenizer, spelling)
    return {
        "loss": scores.loss,
        "ppl": perplexity(nats, tokens),
        "bits_per_byte": nats / math.log(2) / n_bytes if n_bytes else None,
        "bits_per_char": nats / math.log(2) / n_chars if n_chars else None,
        "accuracy": float(scores.top1.mean()),
        "accuracy_top5": float(scores.top5.mean()),
        "word_ppl": perplexity(nats, n_words),
        "tokens": tokens,
        "bytes": n_bytes,
        "chars": n_chars,
        "words": n_words,
        "unknown": 0 if spelling.unknown is None else int(uses[spelling.unknown]),
    }


def perplexity(nats: float, units: int) -> float | None:
    """Return the perplexity per unit of a text with this total of nats, or None for no units."""
    return math.exp(min(nats / units, 700)) if units else None  # a larger exponent overflows a float


@dataclass(frozen=True)
class Spelling:
    """Properties of the text that each id of a tokenizer stands for; arrays (V,)."""

    chars: np.ndarray  # number of characters that begin in the token
    whole: np.ndarray  # bool: the token does not continue a character of the previous token
    unknown: int | None  # the id for text that the vocabulary lacks

    @staticmethod
    def of(tokenizer: Tokenizer) -> Spelling:
        """Derive the properties from a tokenizer."""
        model = json.loads(tokenizer.to_json())["model"]
        unknown = model["vocab"].get(model["unk_token"]) if model.get("unk_token") else model.get("unk_id")
        if unknown == tokenizer.end_of_text:  # so in GPT-2's files, whose byte pairs can spell everything
            unknown = None
        spelled = spellings(tokenizer)
        tokens = [spelled.get(i, b"") for i in range(tokenizer.vocab_size)]
        chars = np.array([sum(byte & 0xC0 != 0x80 for byte in token) for token in tokens])
        chars[tokenizer.token_bytes == 0] = 0  # special tokens
        chars[[] if unknown is None else [unknown]] = 1
        return Spelling(chars, np.array([token[:1] < b"\x80" or token[:1] >= b"\xc0" for token in tokens]), unknown)


def count_words(ids: np.ndarray, tokenizer: Tokenizer, spelling: Spelling, at_once: int = 1 << 16) -> int:
    """Count the words and line ends in the text of all tokens except the first.

    The text is decoded `at_once` tokens at a time, which bounds the memory.
    """
    special = [i for i in tokenizer.special_tokens.values() if i != spelling.unknown]

    def decode(part: np.ndarray) -> str:
        """Decode ids to text; special tokens separate words and do not count as words."""
        first, *others = np.split(part, np.flatnonzero(np.isin(part, special)))
        return " ".join(tokenizer.decode_batch([first.tolist(), *(stretch[1:].tolist() for stretch in others)]))

    count, inside, start = 0, False, 1
    while start < len(ids):
        end = start + at_once
        end += int(spelling.whole[ids[end : end + 4]].argmax()) if end < len(ids) else 0  # to the end of a character
        # the text of a token may depend on the previous token, because some decoders drop a leading space
        piece = decode(ids[start - 1 : end])[len(decode(ids[start - 1 : start])) :]
        if piece:
            count += len(piece.split()) + piece.count("\n") - (inside and not piece[0].isspace())
            inside = not piece[-1].isspace()
        start = end
    return count


def mean_by_position(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean nats of tokens with 1, 2, ... T tokens before them, and the number of these tokens: (T,) both."""
    tokens = np.bincount(scores.position - 1)
    return np.bincount(scores.position - 1, weights=scores.nats) / tokens, tokens


def group_positions(nats: np.ndarray, tokens: np.ndarray) -> list[tuple[int, int, float, int]]:
    """Group the result of `mean_by_position` into positions 1, 2, 3-4, 5-8, ...: (first, last, mean nats, tokens)."""
    rows, first = [], 1
    while first <= len(nats):
        last = min(len(nats), 1 << (first - 1).bit_length())
        n = tokens[first - 1 : last]
        rows.append((first, last, float(nats[first - 1 : last] @ n / n.sum()), int(n.sum())))
        first = last + 1
    return rows


def worst_passages(
    scores: Scores, ids: np.ndarray, tokenizer: Tokenizer, n: int, size: int = 64
) -> list[dict[str, Any]]:
    """Return the `n` passages with the highest mean nats, of passages of about `size` tokens.

    A passage never begins or ends within a character. Its `offset` is the number of characters before it.
    """
    spelling = Spelling.of(tokenizer)
    at = np.append(1 + np.flatnonzero(spelling.whole[ids[1:]]), len(ids))  # where a passage may begin, and the end
    passages = max(1, round(len(scores.nats) / size))
    edges = np.linspace(1, len(ids), passages + 1).round()
    starts = np.unique(at[np.searchsorted(at, edges)])
    sizes = np.diff(starts)
    if not len(sizes):  # the whole text is a part of its first character
        return []
    means = np.add.reduceat(scores.nats, starts[:-1] - 1, dtype=np.float64) / sizes
    before = np.append(0, np.cumsum(spelling.chars[ids]))
    return [
        {
            "nats": float(means[k]),
            "tokens": int(sizes[k]),
            "offset": int(before[starts[k]]),
            "text": tokenizer.decode(ids[starts[k] : starts[k + 1]].tolist()),
        }
        for k in np.argsort(-means, kind="stable")[:n]
    ]
