"""How the next token is chosen from a model's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.base.errors import UserError

BLOCK = 256  # random numbers drawn ahead for each sample
LARGE = 1e12  # logits, temperatures and penalties up to this size do not overflow a float32 together


@dataclass(frozen=True)
class Sampling:
    """Applied in this order, which is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p.

    Each filter sees what the one before it has left, with its probabilities summing to one again. Every finite setting
    works, however extreme: beyond what float32 holds, the computation is done in float64. Raises UserError, that names
    the setting, for what no sampler can do.
    """

    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int | None = None  # the k likeliest tokens
    top_p: float | None = None  # the fewest tokens that hold this probability (Holtzman et al. 2020)
    min_p: float | None = None  # tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024)
    repetition_penalty: float = 1.0  # above 1: tokens already in the text become less likely (Keskar et al. 2019)

    def __post_init__(self) -> None:
        if not self.temperature >= 0:  # nan included
            raise UserError(f"temperature={self.temperature} must be 0 (greedy) or above")
        for key in ("temperature", "repetition_penalty"):
            if math.isinf(getattr(self, key)):
                raise UserError(f"{key}={getattr(self, key)} must be finite")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p={self.min_p} must be from 0 to 1")
        if not self.repetition_penalty > 0:
            raise UserError(f"repetition_penalty={self.repetition_penalty} must be above 0 (1: none)")

    def filtered(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the logits (B, V) of the distribution that is drawn from: -inf for tokens that are filtered out.

        `seen` (B, V) marks the tokens of the text so far, for the repetition penalty. With temperature 0 only the
        penalty is applied. Raises UserError when the model gives no token of a row a probability.
        """
        logits = logits.float()
        wide = not self._fits_float32(logits.amax(-1).tolist())
        if wide:
            logits = widened(logits)
        if self.repetition_penalty != 1 and seen is not None:
            penalty = min(max(self.repetition_penalty, 1e-260), 1e260)  # times a float32, this fits a float64
            rarer = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(seen, rarer, logits)
        if self.temperature == 0:
            return logits
        if wide:  # the softmax stays the same, and the highest logit is 0 at any temperature
            logits = logits - logits.amax(-1, keepdim=True)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.size(-1):
            kth = logits.topk(self.top_k).values[:, -1:]  # (B, 1)
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, index = logits.softmax(-1).sort(descending=True)
            before = ordered.cumsum(-1) - ordered  # probability of everything likelier: 0 for the likeliest token
            excluded = (before >= self.top_p) & (before > 0)
            out = torch.zeros_like(index, dtype=torch.bool).scatter(-1, index, excluded)
            logits = logits.masked_fill(out, -torch.inf)
        if self.min_p:
            least = logits.amax(-1, keepdim=True) + math.log(self.min_p)  # (B, 1)
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits

    def _fits_float32(self, highest: Sequence[float]) -> bool:
        """Tell whether float32 holds all that becomes of rows with these highest logits."""
        factors = (self.temperature or 1.0, self.repetition_penalty)
        return all(1 / LARGE <= factor <= LARGE for factor in factors) and all(abs(x) <= LARGE for x in highest)

    def choose(self, logits: Tensor, u: Tensor, seen: Tensor | None = None) -> Tensor:
        """One token for each row of logits (B, V): (B,). The same `u` (B,), uniform in [0, 1), gives the same token."""
        logits = self.filtered(logits, seen)
        if self.temperature == 0:
            return logits.argmax(-1)
        total = logits.softmax(-1).double().cumsum(-1)  # (B, V)
        place = (u.double() * total[:, -1])[:, None]  # (B, 1)
        return torch.searchsorted(total, place, right=True).squeeze(-1)  # right: never a token without probability


def widened(logits: Tensor) -> Tensor:
    """Return logits (B, V) in float64, with the highest float32 for inf. Raises UserError for rows of -inf or nan."""
    if bool(logits.isnan().any() | (logits.amax(-1) == -torch.inf).any()):
        what = "nan" if bool(logits.isnan().any()) else "-inf"
        raise UserError(f"the model gives no token a probability: its logits are {what}; its weights are broken")
    return logits.double().clamp(max=torch.finfo(torch.float32).max)


def uniforms(seed: int, rows: Sequence[int], length: int) -> Tensor:
    """Return the first `length` numbers that each sample is drawn with: (B, length) in [0, 1).

    Sample number n of a seed is drawn with numbers that depend on (seed, n) alone: neither the other samples nor the
    length change them.
    """
    streams = [stream(seed, n).random(length) for n in rows]
    return torch.from_numpy(np.stack(streams)) if streams else torch.empty(0, length)


def stream(seed: int, n: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, n]))


class Uniforms:
    """The numbers of `uniforms`, drawn BLOCK at a time as they are needed."""

    def __init__(self, seed: int, rows: Sequence[int], length: int) -> None:
        self.length = length
        self.streams = [stream(seed, n) for n in rows]
        self.drawn = np.empty((len(rows), BLOCK))
        self.blocks = [-1] * len(rows)  # which block of its stream each row of `drawn` holds

    def at(self, places: Sequence[int]) -> Tensor:
        """Return number `places[b]` of each row's stream: (B,). In a row, places only grow."""
        for row, place in enumerate(places):
            while self.blocks[row] < place // BLOCK:
                self.drawn[row] = self.streams[row].random(BLOCK)
                self.blocks[row] += 1
        return torch.from_numpy(self.drawn[range(len(places)), [place % BLOCK for place in places]])
