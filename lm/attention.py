"""Causal attention behind one signature; `auto` picks the backend that is faster on this device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.check import Check

BACKENDS = ("auto", "manual", "sdpa")


@dataclass
class AttentionConfig:
    backend: str = "auto"  # auto | manual | sdpa

    def __post_init__(self) -> None:
        check = Check("attention", self)
        check.one_of("backend", BACKENDS)
        check.done()


def pick(device: str, dtype: torch.dtype, block_size: int) -> str:
    """The faster backend, as measured (docs/performance.md): in bf16 on a CPU, plain matrix products up to a
    context of 512; torch's fused kernel everywhere else."""
    return "manual" if device == "cpu" and dtype == torch.bfloat16 and block_size <= 512 else "sdpa"


def attend(
    q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Causal scaled dot-product attention (Vaswani et al. 2017): q, k, v (B, H, T, D) -> (B, H, T, D).

    `dropout` is the probability of dropping an attention weight; pass 0 outside training. `mask` (B, 1, T, T), true
    where a query (row) may look at a key (column), takes the place of the causal one.
    """
    if backend == "auto":
        backend = pick(q.device.type, q.dtype, q.size(2))
    assert backend in BACKENDS, backend
    if backend == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)
    return _manual(q, k, v, dropout, mask)


def document_mask(documents: Tensor) -> Tensor:
    """Causal attention within documents: their numbers (B, T), position by position -> mask (B, 1, T, T)."""
    T = documents.size(1)
    same = documents[:, None, :, None] == documents[:, None, None, :]  # (B, 1, T, T)
    return same & torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()


def _manual(q: Tensor, k: Tensor, v: Tensor, dropout: float, mask: Tensor | None) -> Tensor:
    """The readable reference: scores, mask, softmax, weighted sum."""
    B, H, T, D = q.shape
    if mask is None:
        bias = torch.full((T, T), -math.inf, dtype=q.dtype, device=q.device).triu(1)  # -inf above the diagonal
    else:
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)  # (B, 1, T, T)
        bias = bias.expand(B, H, T, T).reshape(-1, T, T)  # (B*H, T, T)
    scores = torch.baddbmm(bias, q.reshape(-1, T, D), k.reshape(-1, T, D).mT, alpha=D**-0.5)  # (B*H, T, T)
    weights = F.dropout(scores.softmax(-1), dropout)
    return (weights @ v.reshape(-1, T, D)).view(B, H, T, D)
