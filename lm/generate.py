"""Sampling from a model."""

from __future__ import annotations

import torch
from torch import Tensor

from lm.model import GPT, Cache


@torch.no_grad()
def generate(
    model: GPT,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts: ids (B, T) -> (B, T + max_new_tokens). The model must be in eval mode.

    Temperature 0 takes the likeliest token. `top_k` keeps the k likeliest; `top_p` (Holtzman et al. 2020) the fewest
    that hold that much probability; together, first one and then the other. Past the context the model sees the
    latest block_size tokens.
    """
    assert not model.training
    T, cache = model.config.block_size, Cache()
    fresh = ids[:, -T:]  # (B, T') what the cache does not hold yet
    for _ in range(max_new_tokens):
        if cache.length + fresh.size(1) > T:  # every position shifts, so nothing that was kept holds any more
            cache, fresh = Cache(), ids[:, -T:]
        logits = model.logits(model.features(fresh, cache=cache)[:, -1]).float()  # (B, V)
        fresh = sample(logits, temperature, top_k, top_p, generator)  # (B, 1)
        ids = torch.cat((ids, fresh), dim=1)
    return ids


def sample(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """One token per row: (B, V) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None and top_k < logits.size(-1):
        kth = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probs = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, index = probs.sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of everything likelier
        probs = torch.zeros_like(probs).scatter(-1, index, ordered.masked_fill(before >= top_p, 0.0))
    return torch.multinomial(probs, 1, generator=generator)


def check_sampling(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises ValueError that names the setting, for what no sampler can do."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")
