"""Rows of tokens that a model continues, all in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm.generate.sampling import Sampling, Uniforms
from lm.model import GPT, KVCache

ROOM = 1024  # tokens behind the longest prompt that memory is taken for at first


def first_seen(length: int, block_size: int) -> int:
    """Where in a text of `length` tokens the model begins to read in order to predict the next.

    A text that outgrows the context loses a quarter of it at once: with each token that is dropped all others move,
    and what the cache holds is of their old places. So the model sees between three quarters and all of its context.
    """
    quarter = max(1, block_size // 4)
    return -(-max(0, length - block_size) // quarter) * quarter


def drawing_device(device: torch.device) -> torch.device:
    """Return where tokens are drawn, which takes float64: Apple's GPUs have none, so there it is the CPU."""
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

    Yields, for one position of all rows after the other, the ids (B,) that stand there and the logits (B, V) that the
    model had for them; the first position is the one behind the shortest prompt. Where a longer prompt still goes on
    its own token stands, so that no row needs padding and each becomes what it would be alone; its first new token is
    at position T_b. `uniforms` decides what is drawn. `drawable` (V,) marks the ids that may be drawn; None: all.
    Without a cache each token is computed from all before it, which is slower and the same. The model must be in eval
    mode.
    """
    assert not model.training
    device, lengths = model.wte.weight.device, [len(prompt) for prompt in prompts]
    drawn_on = drawing_device(device)
    N = uniforms.length if isinstance(uniforms, Uniforms) else uniforms.size(1)
    shortest, longest, end = min(lengths), max(lengths), max(lengths) + N
    ids = torch.zeros(len(prompts), min(end, longest + ROOM), dtype=torch.long, device=device)  # (B, room for T)
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
            moved = first_seen(t, model.config.block_size)
            if moved != start or not cached:
                cache, start = KVCache(), moved
            x = model.features(ids[:, start + cache.length : t], cache=cache if cached else None)[:, -1]  # (B, C)
            logits = model.logits(x).float()  # (B, V)
            places = [min(max(0, t - length), N - 1) for length in lengths]
            u = uniforms.at(places) if isinstance(uniforms, Uniforms) else uniforms[range(len(places)), places]
            choice = logits.to(drawn_on)
            if banned is not None:
                choice = choice.masked_fill(banned, -torch.inf)
            chosen = sampling.choose(choice, u.to(drawn_on), seen).to(device)
            ids[:, t] = torch.where(t < ends, ids[:, t], chosen)
            if seen is not None:
                seen.scatter_(1, ids[:, t : t + 1].to(drawn_on), True)
        yield ids[:, t], logits
