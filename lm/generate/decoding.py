"""Continue a batch of prompts token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm.generate.sampling import Sampling, Uniforms
from lm.model import GPT, KVCache

RESERVED = 1024  # tokens after the longest prompt for which memory is reserved at the start


def context_start(length: int, block_size: int) -> int:
    """Return the index of the first token of a text of `length` tokens that the model reads to predict the next one.

    A text that outgrows the context loses a quarter of it at once. The cache holds keys and values computed at the old
    positions, and dropping tokens moves all others, so the cache has to be rebuilt each time. The model therefore sees
    between three quarters of its context and all of it.
    """
    quarter = max(1, block_size // 4)
    return -(-max(0, length - block_size) // quarter) * quarter


def drawing_device(device: torch.device) -> torch.device:
    """Return the device that draws the tokens. Drawing uses float64, which Apple GPUs lack; there the CPU draws."""
    return torch.device("cpu") if device.type == "mps" else device


def decode(
    model: GPT,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    uniforms: Tensor | Uniforms,
    cached: bool = True,
    drawable: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue prompts (T_b,) of any lengths, each by as many tokens as `uniforms` (B, N) has columns.

    Yield, for one position of all rows after another, the ids (B,) at this position and the logits (B, V) that the
    model computed for them. The first position is the one after the shortest prompt. A row whose prompt is longer
    yields the tokens of its prompt first; its first new token is at position T_b. So no row needs padding, and each
    row gets the tokens that it would get alone.

    `uniforms` holds the random numbers that decide which tokens are drawn. `drawable` (V,) marks the ids that may be
    drawn; None allows all. With `cached=False` each token is computed from all tokens before it, which is slower and
    gives the same result. The model must be in eval mode.
    """
    assert not model.training
    device, lengths = model.wte.weight.device, [len(prompt) for prompt in prompts]
    drawn_on = drawing_device(device)
    N = uniforms.length if isinstance(uniforms, Uniforms) else uniforms.size(1)
    shortest, longest, end = min(lengths), max(lengths), max(lengths) + N
    ids = torch.zeros(len(prompts), min(end, longest + RESERVED), dtype=torch.long, device=device)  # (B, capacity)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    ends, banned = torch.tensor(lengths, device=device), None if drawable is None else ~drawable.to(drawn_on)
    cache, start, seen = KVCache(), 0, None
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(len(prompts), model.vocab_size, dtype=torch.bool, device=drawn_on)  # (B, V)
        seen.scatter_(1, ids[:, :shortest].to(drawn_on), True)
    for t in range(shortest, end):
        if t == ids.size(1):
            ids = torch.cat((ids, torch.zeros_like(ids)), dim=1)
        with torch.inference_mode():
            new_start = context_start(t, model.config.block_size)
            if new_start != start or not cached:
                cache, start = KVCache(), new_start
            x = model.features(ids[:, start + cache.length : t], cache=cache if cached else None)[:, -1]  # (B, C)
            logits = model.logits(x).float()  # (B, V)
            places = [min(max(0, t - length), N - 1) for length in lengths]
            u = uniforms.at(places) if isinstance(uniforms, Uniforms) else uniforms[range(len(places)), places]
            allowed = logits.to(drawn_on)
            if banned is not None:
                allowed = allowed.masked_fill(banned, -torch.inf)
            chosen = sampling.choose(allowed, u.to(drawn_on), seen).to(device)
            ids[:, t] = torch.where(t < ends, ids[:, t], chosen)
            if seen is not None:
                seen.scatter_(1, ids[:, t : t + 1].to(drawn_on), True)
        yield ids[:, t], logits
