"""Ablation: the loss of a text without one head or one MLP.

A part is replaced by its mean over the text, since zero would be far from everything that the later layers know.
Shapes: N windows, T time, C width, H heads, D head width (C/H), L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.analysis.edits import Edit, edited
from lm.analysis.trace import record
from lm.data.batches import document_numbers
from lm.model import GPT

BATCH = 8  # windows at a time
KINDS = ("heads", "mlps")


@dataclass(frozen=True)
class Ablated:
    """The rise of the loss without one part, or without all parts of a kind, in nats per token."""

    name: str  # L0.H3, L0.mlp, all heads, all mlps
    rise: float
    error: float  # its standard error over the windows


@torch.no_grad()
def ablate(
    model: GPT,
    windows: Tensor,
    kinds: tuple[str, ...] = KINDS,
    end_of_text: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[float, list[Ablated], list[Ablated]]:
    """Return the loss of the `windows` of tokens (N, T + 1), the rise without each part, and without all of a kind.

    Effects do not add up: the rise without all parts of a kind usually exceeds the sum of the single ones, because
    parts stand in for each other. Give `end_of_text` to keep attention within documents.
    """

    def losses() -> Tensor:
        return window_losses(model, windows, end_of_text)

    means = mean_outputs(model, windows, end_of_text)
    base = losses()  # (N,)
    singles: list[Ablated] = []
    joint: list[Ablated] = []
    for kind in kinds:
        parts = {f"L{i}.{name}": edit for i, mean in enumerate(means) for name, edit in edits_of(kind, i, mean)}
        for name, edit in parts.items():
            progress(name)
            singles.append(rise(name, model, [edit], losses, base))
        joint.append(rise(f"all {kind}", model, list(parts.values()), losses, base))
    return float(base.mean()), singles, joint


def rise(name: str, model: GPT, edits: list[Edit], losses: Callable[[], Tensor], base: Tensor) -> Ablated:
    """Measure the rise of the loss with some edits."""
    with edited(model, edits):
        differences = losses() - base  # (N,)
    error = float(differences.std() / len(differences) ** 0.5) if len(differences) > 1 else float("nan")
    return Ablated(name, float(differences.mean()), error)


def edits_of(kind: str, layer: int, means: tuple[Tensor, Tensor]) -> list[tuple[str, Edit]]:
    """Return the edits that ablate the heads, or the MLP, of a layer, with their names."""
    z, mlp = means  # (H, D), (C,)
    if kind == "mlps":
        return [("mlp", Edit("mlp_out", layer, lambda x: mlp.expand_as(x)))]
    return [(f"H{h}", Edit("z", layer, replace_head(h, z[h]))) for h in range(len(z))]


def replace_head(head: int, value: Tensor) -> Callable[[Tensor], Tensor]:
    def change(z: Tensor) -> Tensor:  # (B, T, H, D)
        z[:, :, head] = value
        return z

    return change


def mean_outputs(model: GPT, windows: Tensor, end_of_text: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Return for each layer the mean z (H, D) and the mean output of the MLP (C,) over all positions."""
    sums: list[tuple[Tensor, Tensor]] = []
    for rows in windows.split(BATCH):
        with record(model) as trace:
            model(rows[:, :-1], document_numbers(rows[:, :-1], end_of_text))
        parts = [(x.z.double().sum((0, 1)), x.mlp_out.double().sum((0, 1))) for x in trace.layers]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, parts, strict=True)] if sums else parts
    count, dtype = windows[:, :-1].numel(), model.wte.weight.dtype
    return [((z / count).to(dtype), (mlp / count).to(dtype)) for z, mlp in sums]


def window_losses(model: GPT, windows: Tensor, end_of_text: int | None = None) -> Tensor:
    """Return the mean nats per token of each window (N, T + 1): (N,) in float64."""
    found = []
    for rows in windows.split(BATCH):
        logits = model(rows[:, :-1], document_numbers(rows[:, :-1], end_of_text))
        found.append(F.cross_entropy(logits.mT.float(), rows[:, 1:], reduction="none").double().mean(1))
    return torch.cat(found)
