"""Choose the next token from a model's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.base.errors import UserError

BLOCK = 256  # random numbers drawn ahead for each sample
LARGE = 1e12  # logits, temperatures and penalties up to this size do not overflow a float32 when combined


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling, applied in Hugging Face's order: repetition penalty, temperature, top-k, top-p, min-p.

    Each filter sees the tokens that the filters before it have left, with their probabilities normalized to one.
    Every finite setting works, however extreme: what exceeds the range of float32 is computed in float64. Raises
    UserError, naming the setting, for a value that is out of range.
    """

    temperature: float = 1.0  # 0: always the most probable token
    top_k: int | None = None  # choose among the k most probable tokens
    top_p: float | None = None  # choose among the fewest tokens that hold this probability (Holtzman et al. 2020)
    min_p: float | None = None  # drop tokens below this share of the highest probability (Nguyen et al. 2024)
    repetition_penalty: float = 1.0  # above 1: tokens already in the text become less likely (Keskar et al. 2019)

    def __post_init__(self) -> None:
        if not self.temperature >= 0:  # also true for nan
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
            raise UserError(f"repetition_penalty={self.repetition_penalty} must be above 0 (1: no penalty)")

    def filter_logits(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the logits (B, V) of the distribution that tokens are drawn from; -inf for excluded tokens.

        `seen` (B, V) marks the tokens of the text so far, for the repetition penalty. With temperature 0 only the
        penalty is applied. Raises UserError if a row of logits has nan, or no token with a probability.
        """
        logits = logits.float()
        wide = not self._fits_float32(logits.amax(-1).tolist())
        if wide:
            logits = to_float64(logits)
        if self.repetition_penalty != 1 and seen is not None:
            penalty = min(max(self.repetition_penalty, 1e-260), 1e260)  # its product with a float32 fits a float64
            penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(seen, penalized, logits)
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
            before = ordered.cumsum(-1) - ordered  # probability of all tokens ranked higher: 0 for the first
            excluded = (before >= self.top_p) & (before > 0)
            out = torch.zeros_like(index, dtype=torch.bool).scatter(-1, index, excluded)
            logits = logits.masked_fill(out, -torch.inf)
        if self.min_p:
            lowest = logits.amax(-1, keepdim=True) + math.log(self.min_p)  # (B, 1)
            logits = logits.masked_fill(logits < lowest, -torch.inf)
        return logits

    def _fits_float32(self, highest: Sequence[float]) -> bool:
        """Tell whether all intermediate values fit float32 for rows with these highest logits."""
        factors = (self.temperature or 1.0, self.repetition_penalty)
        return all(1 / LARGE <= factor <= LARGE for factor in factors) and all(abs(x) <= LARGE for x in highest)

    def choose(self, logits: Tensor, u: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return one token for each row of logits (B, V): (B,).

        `u` (B,) holds random numbers, uniform in [0, 1). The same `u` gives the same token.
        """
        logits = self.filter_logits(logits, seen)
        if self.temperature == 0:
            return logits.argmax(-1)
        total = logits.softmax(-1).double().cumsum(-1)  # (B, V)
        place = (u.double() * total[:, -1])[:, None]  # (B, 1)
        return torch.searchsorted(total, place, right=True).squeeze(-1)  # right: never a token of probability 0


def to_float64(logits: Tensor) -> Tensor:
    """Return logits (B, V) in float64, with inf replaced by the highest float32.

    Raises UserError if a row consists of -inf, or if there is a nan.
    """
    if bool(logits.isnan().any() | (logits.amax(-1) == -torch.inf).any()):
        value = "nan" if bool(logits.isnan().any()) else "-inf"
        raise UserError(f"the model gives no token a probability: its logits are {value}; its weights are broken")
    return logits.double().clamp(max=torch.finfo(torch.float32).max)


def uniforms(seed: int, rows: Sequence[int], length: int) -> Tensor:
    """Return the first `length` random numbers of each sample: (B, length), uniform in [0, 1).

    The numbers of sample n depend on (seed, n) alone. They change neither with the other samples nor with the length.
    """
    streams = [random_stream(seed, n).random(length) for n in rows]
    return torch.from_numpy(np.stack(streams)) if streams else torch.empty(0, length)


def random_stream(seed: int, n: int) -> np.random.Generator:
    """Return the random generator of sample n."""
    return np.random.Generator(np.random.Philox(key=[seed, n]))


class Uniforms:
    """The numbers of `uniforms`, drawn BLOCK at a time when they are needed."""

    def __init__(self, seed: int, rows: Sequence[int], length: int) -> None:
        self.length = length
        self.streams = [random_stream(seed, n) for n in rows]
        self.drawn = np.empty((len(rows), BLOCK))
        self.blocks = [-1] * len(rows)  # the block of its stream that each row of `drawn` holds

    def at(self, places: Sequence[int]) -> Tensor:
        """Return number `places[b]` of each row's stream: (B,). The places of a row must never decrease."""
        for row, place in enumerate(places):
            while self.blocks[row] < place // BLOCK:
                self.drawn[row] = self.streams[row].random(BLOCK)
                self.blocks[row] += 1
        return torch.from_numpy(self.drawn[range(len(places)), [place % BLOCK for place in places]])
