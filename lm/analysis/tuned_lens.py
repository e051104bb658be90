"""The tuned lens: a logit lens with an affine map per layer, trained to predict what the model predicts in the end.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens".
Shapes: N positions, C width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lm.analysis.lens import streams
from lm.analysis.trace import record
from lm.model import GPT

STEPS, POSITIONS, RATE = 100, 256, 1e-3  # optimizer steps, positions in each, learning rate
BATCH = 8  # windows at a time


@dataclass(frozen=True)
class Translator:
    """The map of one layer: x + x A + b, which is the identity at first."""

    name: str  # embed, L0, L1, ...
    matrix: Tensor  # A (C, C)
    bias: Tensor  # b (C,)
    logit_kl: float  # KL divergence of the logit lens from the model's prediction on other windows, nats
    tuned_kl: float  # the same with this map

    def __call__(self, x: Tensor) -> Tensor:
        return x + x @ self.matrix + self.bias


def tune(
    model: GPT, windows: Tensor, seed: int = 0, progress: Callable[[str], None] = lambda name: None
) -> list[Translator]:
    """Train a map for the stream after the embeddings and after every block, on windows of tokens (N, T).

    The last quarter of the windows only measures. The map of the last layer is the identity. A map that is no better
    than the identity on the windows that it was trained on is the identity too.
    """
    with torch.no_grad():
        parts = []
        for rows in windows.split(BATCH):
            with record(model) as trace:
                model(rows)
            parts.append([x for _, x in streams(trace)])
        names = [name for name, _ in streams(trace)]
        stages = [torch.cat(stage).flatten(0, 1) for stage in zip(*parts, strict=True)]  # each (N, C)
    held = max(1, len(windows) // 4) * windows.size(1)
    C, found = stages[0].size(1), []
    for name, stage in zip(names, stages, strict=True):
        progress(name)
        matrix, bias = stage.new_zeros(C, C), stage.new_zeros(C)
        if name != names[-1] and len(stage) > held:
            matrix, bias = train_map(model, stage[:-held], stages[-1][:-held], seed)
        before = mean_kl(model, stage[-held:], stages[-1][-held:])
        after = mean_kl(model, stage[-held:] + stage[-held:] @ matrix + bias, stages[-1][-held:])
        found.append(Translator(name, matrix, bias, before, after))
    return found


def train_map(model: GPT, stage: Tensor, final: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the map of one layer, trained with Adam on random positions of `stage` (N, C) and `final` (N, C)."""
    generator = torch.Generator().manual_seed(seed)
    matrix, bias = (
        nn.Parameter(stage.new_zeros(stage.size(1), stage.size(1))),
        nn.Parameter(stage.new_zeros(stage.size(1))),
    )
    optimizer = torch.optim.Adam([matrix, bias], lr=RATE)
    for _ in range(STEPS):
        chosen = torch.randint(len(stage), (POSITIONS,), generator=generator)
        x = stage[chosen]
        loss = divergence(model, x + x @ matrix + bias, final[chosen]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tuned = stage + stage @ matrix.detach() + bias.detach()
    if mean_kl(model, tuned, final) >= mean_kl(model, stage, final):
        return torch.zeros_like(matrix), torch.zeros_like(bias)
    return matrix.detach(), bias.detach()


def divergence(model: GPT, stage: Tensor, final: Tensor) -> Tensor:
    """Return the KL divergence of the prediction from `stage` (N, C) from that of `final` (N, C): (N,) in nats."""
    with torch.no_grad():
        expected = model.logits(model.norm(final)).float().log_softmax(-1)
    log_probs = model.logits(model.norm(stage)).float().log_softmax(-1)
    return (expected.exp() * (expected - log_probs)).sum(-1)


@torch.no_grad()
def mean_kl(model: GPT, stage: Tensor, final: Tensor) -> float:
    """Return the mean divergence, computed in pieces."""
    pieces = zip(stage.split(POSITIONS), final.split(POSITIONS), strict=True)
    return float(torch.cat([divergence(model, a, b) for a, b in pieces]).mean())
