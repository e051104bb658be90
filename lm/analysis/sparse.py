"""Sparse autoencoders: write activations as sums of few directions out of many, called features.

BatchTopK, Bussmann et al. 2024: of all activations of a batch of N vectors, the N * k largest are kept.
Shapes: N vectors, C width, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lm.analysis.ablation import window_losses
from lm.analysis.edits import Edit, edited
from lm.analysis.trace import record
from lm.data.batches import document_numbers
from lm.model import GPT

STEPS, VECTORS, RATE = 500, 512, 4e-3  # optimizer steps, vectors in each, learning rate
BATCH = 8  # windows at a time


class SparseAutoencoder(nn.Module):
    """`active` of `features` directions for each vector of width C, on average.

    A feature's activation is relu(w x + b), and its direction has length 1. Vectors are first centered and divided by
    one number, so that learning rate and threshold do not depend on the model. After training, an activation counts
    if it is above `threshold`, so that the features of a vector do not depend on the others of its batch.
    """

    center: Tensor  # (C,)
    size: Tensor  # () root mean square of the centered vectors
    threshold: Tensor  # ()

    def __init__(self, x: Tensor, features: int, active: int, seed: int = 0) -> None:
        super().__init__()
        C, self.active = x.size(1), active
        self.register_buffer("center", x.mean(0))
        self.register_buffer("size", (x - x.mean(0)).square().mean().sqrt().clamp(min=1e-8))
        self.register_buffer("threshold", torch.tensor(0.0))
        directions = torch.randn(features, C, generator=torch.Generator().manual_seed(seed))
        directions = nn.functional.normalize(directions, dim=1).to(x)
        self.encoder = nn.Linear(C, features, dtype=x.dtype)
        self.decoder = nn.Linear(features, C, dtype=x.dtype)
        with torch.no_grad():
            self.encoder.weight.copy_(directions)
            self.decoder.weight.copy_(directions.T)
            self.encoder.bias.zero_()
            self.decoder.bias.zero_()

    def activations(self, x: Tensor) -> Tensor:
        """Return the activations of all features before any is dropped: (..., C) -> (..., F)."""
        return self.encoder((x - self.center) / self.size).relu()

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations (..., F) that are above the threshold; all others are 0."""
        a = self.activations(x)
        return a * (a > self.threshold)

    def decode(self, a: Tensor) -> Tensor:
        """Return the vectors of activations: (..., F) -> (..., C)."""
        return self.decoder(a) * self.size + self.center

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def train_autoencoder(x: Tensor, features: int, active: int, seed: int = 0) -> SparseAutoencoder:
    """Train an autoencoder on vectors x (N, C), with Adam on the squared error."""
    sae = SparseAutoencoder(x, features, active, seed)
    optimizer = torch.optim.Adam(sae.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 5 * (1 - step / STEPS))  # falls in the last fifth
        batch = x[torch.randint(len(x), (VECTORS,), generator=generator)]
        a = sae.activations(batch)
        kept = min(VECTORS * active, a.numel())
        least = a.detach().flatten().kthvalue(a.numel() - kept + 1).values  # the smallest that is kept
        loss = (sae.decode(a * (a >= least)) - batch).div(sae.size).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sae.decoder.weight.div_(sae.decoder.weight.norm(dim=0).clamp(min=1e-8))
            sae.threshold.lerp_(least, 0.01 if step else 1.0)
    return sae.requires_grad_(False)


@dataclass(frozen=True)
class Quality:
    """How well an autoencoder replaces the values that it was trained on."""

    active: float  # features per vector that are not 0 ("L0")
    explained: float  # share of the variance
    dead: float  # share of the features that are 0 for every vector
    loss: float  # of the model, in nats per token
    loss_reconstructed: float  # with the values replaced by their reconstruction
    loss_mean: float  # with the values replaced by their mean

    @property
    def recovered(self) -> float:
        """The share of the loss that the reconstruction keeps: 0 is no better than the mean, 1 is the model."""
        return (self.loss_mean - self.loss_reconstructed) / (self.loss_mean - self.loss)


@torch.no_grad()
def stream_before(model: GPT, windows: Tensor, layer: int, end_of_text: int | None = None) -> Tensor:
    """Return the residual stream before a layer, on windows of tokens (B, T): (B, T, C)."""
    found = []
    for rows in windows.split(BATCH):
        with record(model) as trace:
            model(rows, document_numbers(rows, end_of_text))
        found.append(trace.layers[layer].resid_pre)
    return torch.cat(found)


@torch.no_grad()
def measure_quality(
    sae: SparseAutoencoder, model: GPT, windows: Tensor, layer: int, end_of_text: int | None = None
) -> Quality:
    """Measure an autoencoder of the residual stream before `layer` on windows of tokens (B, T + 1)."""
    x = stream_before(model, windows[:, :-1], layer, end_of_text).flatten(0, 1)  # (N, C)
    a = sae.encode(x)

    def loss(*edits: Edit) -> float:
        with edited(model, edits):
            return float(window_losses(model, windows, end_of_text).mean())

    return Quality(
        active=float((a > 0).double().sum(1).mean()),
        explained=1 - float((sae.decode(a) - x).square().sum() / (x - x.mean(0)).square().sum()),
        dead=float((~(a > 0).any(0)).double().mean()),
        loss=loss(),
        loss_reconstructed=loss(Edit("resid_pre", layer, sae)),
        loss_mean=loss(Edit("resid_pre", layer, lambda stream: x.mean(0).expand_as(stream))),
    )
