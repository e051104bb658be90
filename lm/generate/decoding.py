"""Rows of tokens that a model continues, all in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm.generate.sampling import Sampling
from lm.model import GPT, Cache


def first_seen(length: int, block_size: int) -> int:
    """Where in a text of `length` tokens the model begins to read in order to predict the next.

    A text that outgrows the context loses a quarter of it at once: with each token that is dropped all others move,
    and what the cache holds is of their old places. So the model sees between three quarters and all of its context.
    """
    quarter = max(1, block_size // 4)
    return -(-max(0, length - block_size) // quarter) * quarter


def decode(
    model: GPT, prompts: Sequence[Tensor], sampling: Sampling, uniforms: Tensor, cached: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue prompts (T_b,) of any lengths, each by as many tokens as `uniforms` (B, N) has columns.

    Yields, for one position of all rows after the other, the ids (B,) that stand there and the logits (B, V) that the
    model had for them; the first position is the one behind the shortest prompt. Where a longer prompt still goes on
    its own token stands, so that no row needs padding and each becomes what it would be alone; its first new token is
    at position T_b. `uniforms` decides what is drawn (sampling.uniforms). Without a cache each token is computed from
    all before it, which is slower and the same. The model must be in eval mode.
    """
    assert not model.training
    device, N = model.wte.weight.device, uniforms.size(1)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # (B,)
    shortest, end = int(lengths.min()), int(lengths.max()) + N
    ids = torch.zeros(len(prompts), end, dtype=torch.long, device=device)  # (B, all T)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    uniforms, rows = uniforms.to(device), torch.arange(len(prompts), device=device)
    cache, start, seen = Cache(), 0, None
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(len(prompts), model.vocab_size, dtype=torch.bool, device=device)
        seen.scatter_(1, ids[:, :shortest], True)
    for t in range(shortest, end):
        with torch.inference_mode():
            moved = first_seen(t, model.config.block_size)
            if moved != start or not cached:
                cache, start = Cache(), moved
            x = model.features(ids[:, start + cache.length : t], cache=cache if cached else None)[:, -1]  # (B, C)
            logits = model.logits(x).float()  # (B, V)
            new = (t - lengths).clamp(0, N - 1)
            chosen = sampling.choose(logits, uniforms[rows, new], seen)
            ids[:, t] = torch.where(t < lengths, ids[:, t], chosen)
            if seen is not None:
                seen.scatter_(1, ids[:, t : t + 1], True)
        yield ids[:, t], logits
