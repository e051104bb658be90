"""Sizes of the residual stream and of what each branch adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lm.analysis.trace import Trace


@dataclass(frozen=True)
class LayerNorms:
    """Root mean squares per channel, means over all positions, of one block."""

    layer: int
    resid_pre: float  # the stream before the block
    attn_out: float
    resid_mid: float  # the stream between attention and MLP
    mlp_out: float
    resid_post: float  # the stream after the block
    attn_cosine: float  # mean cosine of what attention adds with the stream that it is added to
    mlp_cosine: float


def stream_norms(trace: Trace) -> list[LayerNorms]:
    """Measure the residual stream and both branches of every block."""
    return [
        LayerNorms(
            i, rms(x.resid_pre), rms(x.attn_out), rms(x.resid_mid), rms(x.mlp_out), rms(x.resid_post),
            cosine(x.attn_out, x.resid_pre), cosine(x.mlp_out, x.resid_mid),
        )
        for i, x in enumerate(trace.layers)
    ]  # fmt: skip


def rms(x: Tensor) -> float:
    return float(x.double().square().mean(-1).sqrt().mean())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.double(), b.double(), dim=-1).mean())
