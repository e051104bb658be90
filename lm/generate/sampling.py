"""How the next token is chosen from a model's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Applied in this order, which is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p.

    Each filter sees what the one before it has left, with its probabilities summing to one again. Raises ValueError,
    that names the setting, for what no sampler can do.
    """

    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int | None = None  # the k likeliest tokens
    top_p: float | None = None  # the fewest tokens that hold this probability (Holtzman et al. 2020)
    min_p: float | None = None  # tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024)
    repetition_penalty: float = 1.0  # above 1: tokens already in the text become less likely (Keskar et al. 2019)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or above")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p} must be from 0 to 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be above 0 (1: none)")

    def filtered(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Logits (B, V) of the distribution that is drawn from; -inf for tokens that are out of the question.

        `seen` (B, V) marks the tokens of the text so far, for the repetition penalty. With temperature 0 the logits
        come back with the penalty alone.
        """
        logits = logits.float()
        if self.repetition_penalty != 1 and seen is not None:
            rarer = torch.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
            logits = torch.where(seen, rarer, logits)
        if self.temperature == 0:
            return logits
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.size(-1):
            kth = logits.topk(self.top_k).values[:, -1:]  # (B, 1)
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, index = logits.softmax(-1).sort(descending=True)
            before = ordered.cumsum(-1) - ordered  # probability of everything likelier
            out = torch.zeros_like(index, dtype=torch.bool).scatter(-1, index, before >= self.top_p)
            logits = logits.masked_fill(out, -torch.inf)
        if self.min_p:
            least = logits.amax(-1, keepdim=True) + math.log(self.min_p)  # (B, 1)
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits

    def choose(self, logits: Tensor, u: Tensor, seen: Tensor | None = None) -> Tensor:
        """One token for each row of logits (B, V): (B,). The same `u` (B,), uniform in [0, 1), gives the same token."""
        logits = self.filtered(logits, seen)
        if self.temperature == 0:
            return logits.argmax(-1)
        total = logits.softmax(-1).double().cumsum(-1)  # (B, V)
        place = (u.double() * total[:, -1])[:, None]  # (B, 1)
        return torch.searchsorted(total, place, right=True).squeeze(-1)  # right: never a token without probability


def uniforms(seed: int, rows: Sequence[int], length: int) -> Tensor:
    """What sample number n of a seed is drawn with: (B, length) in [0, 1), a row for each n of `rows`.

    A function of (seed, n) and no more: neither the other rows nor the length asked for change it.
    """
    streams = [np.random.Generator(np.random.Philox(key=[seed, n])).random(length) for n in rows]
    return torch.from_numpy(np.stack(streams)) if streams else torch.empty(0, length)
