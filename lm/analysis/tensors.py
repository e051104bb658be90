"""Statistics of the parameters of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.model import GPT


@dataclass(frozen=True)
class TensorStats:
    """Statistics of one tensor.

    `std` is the population standard deviation, so rms^2 = mean^2 + std^2.
    """

    name: str
    shape: list[int]
    numbers: int
    mean: float
    std: float
    rms: float
    min: float
    max: float
    zeros: float  # fraction of the numbers
    nan: int
    inf: int
    spectral_norm: float | None = None  # the largest singular value; matrices only
    stable_rank: float | None = None  # ||W||_F^2 / ||W||_2^2: at most the rank (Rudelson and Vershynin 2007)


def weight_stats(model: GPT) -> list[TensorStats]:
    """Return the statistics of every parameter; a tied parameter counts once."""
    return [tensor_stats(name, p.detach()) for name, p in model.named_parameters()]


def tensor_stats(name: str, tensor: Tensor) -> TensorStats:
    """Compute the statistics of one tensor in fp64; norm and rank are nan if a number is nan or infinite."""
    x = tensor.double()
    nan, inf = int(x.isnan().sum()), int(x.isinf().sum())
    norm = rank = None
    if x.dim() == 2:
        norm = rank = math.nan
        if not nan + inf:
            gram = x.mT @ x if x.size(0) > x.size(1) else x @ x.mT  # its eigenvalues are the squared singular values
            norm = float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt())
            rank = float(x.square().sum()) / norm**2 if norm else math.nan
    return TensorStats(
        name, list(x.shape), x.numel(), float(x.mean()), float(x.std(correction=0)), float(x.square().mean().sqrt()),
        float(x.min()), float(x.max()), float((x == 0).double().mean()), nan, inf, norm, rank,
    )  # fmt: skip


def total_stats(parts: Sequence[TensorStats]) -> TensorStats:
    """Return the statistics of all numbers of all tensors together."""
    n = np.array([part.numbers for part in parts])
    mean, square, zeros = (
        float(np.dot(n, values) / n.sum())
        for values in ([p.mean for p in parts], [p.rms**2 for p in parts], [p.zeros for p in parts])
    )
    low, high = float(np.min([p.min for p in parts])), float(np.max([p.max for p in parts]))  # nan if any is nan
    nan, inf = (sum(values) for values in zip(*((p.nan, p.inf) for p in parts), strict=True))
    std = math.sqrt(max(0.0, square - mean**2)) if math.isfinite(square) else math.nan
    return TensorStats("total", [], int(n.sum()), mean, std, math.sqrt(square), low, high, zeros, nan, inf)
