"""Scores of attention heads on repeated random tokens: induction, previous-token and duplicate-token heads.

Random tokens have no statistics to learn, so only copying from the first half can predict the second (Olsson et al.
2022, "In-context Learning and Induction Heads").
Shapes: N sequences, T time, H heads, L layers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.analysis.trace import record
from lm.base.errors import UserError
from lm.model import GPT

KINDS = ("induction", "previous", "duplicate")
SEQUENCES, HALF = 16, 64  # number of sequences, and most tokens of a half
BATCH = 4  # sequences at a time


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of every head in the second half of a sequence of random tokens that is repeated once.

    induction is the attention to the token after the same token in the first half, previous that to the token before,
    duplicate that to the same token in the first half. All are means over positions and sequences.
    """

    scores: dict[str, Tensor]  # by kind: (L, H)
    errors: dict[str, Tensor]  # their standard errors over the sequences: (L, H)
    chance: float  # the score of a head that attends to all allowed positions equally
    first_loss: float  # nats per token where nothing can be predicted: up to the first token of the second half
    second_loss: float  # nats per token of the rest of the second half, which copying predicts

    def best(self, kind: str) -> tuple[int, int, float]:
        """Return layer, head and score of the head with the highest score of a kind."""
        table = self.scores[kind]
        layer, head = divmod(int(table.argmax()), table.size(1))
        return layer, head, float(table[layer, head])


@torch.no_grad()
def score_heads(model: GPT, seed: int = 0, half: int | None = None, sequences: int = SEQUENCES) -> HeadScores:
    """Score all heads of a model on `sequences` sequences of repeated random tokens.

    `half` is the number of tokens that are repeated; by default it is as many as model and vocabulary allow, at most
    HALF. No token stands twice in a half, so that every token has one place to copy from. Raises UserError if the
    context, the window or the vocabulary is too small to hold a repetition.
    """
    most = most_repeated(model)
    half = min(HALF, most) if half is None else half
    if not 2 <= half <= most:
        raise UserError(f"--repeat={half} must be from 2 to {most} for this model and vocabulary")
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(model.vocab_size, generator=generator)[:half] for _ in range(sequences)]
    ids = torch.stack(draws).repeat(1, 2).to(model.wte.weight.device)  # (N, T)
    offsets = {"induction": half - 1, "previous": 1, "duplicate": half}
    means: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    losses: list[Tensor] = []
    for rows in ids.split(BATCH):
        with record(model) as trace:
            logits = model(rows)
        losses.append(F.cross_entropy(logits[:, :-1].mT.float(), rows[:, 1:], reduction="none"))  # (B, T - 1)
        patterns = [layer.pattern for layer in trace.layers]  # each (B, H, T, T)
        for kind, offset in offsets.items():
            diagonals = [p.diagonal(-offset, 2, 3)[..., -half:].mean(-1) for p in patterns]  # each (B, H)
            means[kind].append(torch.stack(diagonals, 1))
    loss = torch.cat(losses).mean(0)
    scores = {kind: torch.cat(parts) for kind, parts in means.items()}  # (N, L, H)
    allowed = torch.arange(half, 2 * half) + 1
    if model.config.window:
        allowed = allowed.clamp(max=model.config.window)
    return HeadScores(
        {kind: s.mean(0) for kind, s in scores.items()},
        {kind: s.std(0) / sequences**0.5 for kind, s in scores.items()},
        float((1 / allowed).mean()), float(loss[:half].mean()), float(loss[half:].mean()),
    )  # fmt: skip


def most_repeated(model: GPT) -> int:
    """Return how many tokens can be repeated within context and window without using a token twice."""
    c = model.config
    most = min(c.block_size // 2, (c.window or c.block_size) - 1, model.vocab_size)
    if most < 2:
        raise UserError(
            f"model.block_size={c.block_size}, model.window={c.window} and {model.vocab_size} tokens are too few to "
            "score heads: two tokens and their repetition need a context of 4, a window of 3 and a vocabulary of 2"
        )
    return most
