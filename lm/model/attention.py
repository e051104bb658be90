"""Causal attention in three implementations with one signature; `auto` picks the faster one for the device."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.model.precision import DTYPES

BACKENDS = ("auto", "manual", "sdpa", "flex")


@dataclass
class AttentionConfig:
    # implementation: auto | manual | sdpa | flex; auto picks the fastest that was measured for the device
    backend: str = "auto"

    def __post_init__(self) -> None:
        check = Check("attention", self)
        check.one_of("backend", BACKENDS)
        check.done()

    def resolve(self, device: str, precision: str, block_size: int) -> str:
        """Return 'manual', 'sdpa' or 'flex'."""
        return choose_backend(device, DTYPES[precision], block_size) if self.backend == "auto" else self.backend

    def require(self, device: str, dropout: float) -> None:
        """Check that the backend can train on this type of device. Raises UserError that lists what is missing."""
        if self.backend != "flex":
            return
        missing = []
        if device != "cuda":
            missing.append(f"a CUDA GPU, and this run is on {device} (torch has no backward pass for it elsewhere)")
        elif importlib.util.find_spec("triton") is None:
            missing.append("triton, with which torch compiles it")
        if dropout:
            missing.append(f"attention without dropout, which is {dropout:g} here (model.dropout_attn=0)")
        if missing:
            raise UserError(f"attention=flex needs {' and '.join(missing)}; attention=sdpa works without them")


def choose_backend(device: str, dtype: torch.dtype, block_size: int) -> str:
    """Return the backend that was faster in measurements (docs/performance.md).

    In bf16 on a CPU, and up to a context of 512, it is `manual`. Everywhere else it is torch's fused kernel, `sdpa`.
    """
    return "manual" if device == "cpu" and dtype == torch.bfloat16 and block_size <= 512 else "sdpa"


def make_mask(
    backend: str, queries: int, keys: int, device: torch.device, window: int | None, documents: Tensor | None
) -> Any:
    """Return the mask for `attend`, which says what keys a query attends to; None for plain causal attention.

    The queries are the last positions of the keys. With a `window`, a query attends to that many positions, its own
    included. `documents` (B, keys) is the number of the document of each position; a query attends only to its own
    document.
    """
    window = None if window is None or window >= keys else window
    causal = window is None and documents is None
    if causal and (queries == 1 or (queries == keys and backend != "flex")):  # without a mask, flex is not causal
        return None
    if backend == "flex":
        return _block_mask(queries, keys, device, window, documents)
    q = torch.arange(keys - queries, keys, device=device)[:, None]  # (Tq, 1)
    k = torch.arange(keys, device=device)
    mask = k <= q  # (Tq, Tk)
    if window is not None:
        mask = mask & (q - k < window)
    if documents is None:
        return mask
    return mask & (documents[:, None, -queries:, None] == documents[:, None, None, :])  # (B, 1, Tq, Tk)


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", dropout: float = 0.0, mask: Any = None) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017): q (B, H, Tq, D), k, v (B, Hkv, Tk, D) -> (B, H, Tq, D).

    Each of the Hkv key and value heads serves H / Hkv query heads (Ainslie et al. 2023). The queries are the last Tq of
    the Tk positions. `mask` is the result of `make_mask` for the same backend; without a mask, attention is causal.
    `dropout` is the probability of dropping an attention weight; pass 0 outside training.
    """
    if backend == "auto":
        backend = choose_backend(q.device.type, q.dtype, k.size(2))
    assert backend in BACKENDS, backend
    if backend == "flex":
        assert dropout == 0.0, "flex attention has no dropout"
        return _flex()(q, k, v, block_mask=mask, enable_gqa=q.size(1) != k.size(1))
    if backend == "sdpa":
        causal = mask is None and q.size(2) > 1
        grouped = q.size(1) != k.size(1)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, enable_gqa=grouped
        )
    return _manual(q, k, v, dropout, mask)


def _manual(q: Tensor, k: Tensor, v: Tensor, dropout: float, mask: Tensor | None) -> Tensor:
    """Compute attention step by step: scores, mask, softmax, weighted sum. This is the reference."""
    B, H, Tq, D = q.shape
    Tk = k.size(2)
    if k.size(1) != H:
        k, v = (x.repeat_interleave(H // x.size(1), dim=1) for x in (k, v))  # (B, H, Tk, D)
    if mask is None:
        bias = torch.full((Tq, Tk), -math.inf, dtype=q.dtype, device=q.device).triu(Tk - Tq + 1)  # hides the future
    else:
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
        bias = bias.expand(B, H, Tq, Tk).reshape(-1, Tq, Tk)  # (B*H, Tq, Tk)
    q, k, v = (x.reshape(B * H, -1, D) for x in (q, k, v))
    scores = torch.baddbmm(bias, q, k.mT, alpha=D**-0.5)  # (B*H, Tq, Tk)
    weights = F.dropout(scores.softmax(-1), dropout)
    return (weights @ v).view(B, H, Tq, D)


@lru_cache(maxsize=1)
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)  # without compilation it computes all scores


def _block_mask(queries: int, keys: int, device: torch.device, window: int | None, documents: Tensor | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        q = q + (keys - queries)
        ok = k <= q
        if window is not None:
            ok = ok & (q - k < window)
        if documents is not None:
            ok = ok & (documents[b, q] == documents[b, k])
        return ok

    return create_block_mask(allowed, None if documents is None else len(documents), None, queries, keys, device=device)
