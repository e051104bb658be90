"""A transformer block and its attention layer.

Shapes: B batch, T time, C width (n_embd), H heads, Hkv key and value heads, D head width (C/H).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lm.model.attention import attend
from lm.model.config import GPTConfig
from lm.model.kv_cache import KVCache
from lm.model.layers import MLP, SwiGLU, make_norm, rotate

Rope = tuple[Tensor, Tensor] | None  # cosines and sines


class Block(nn.Module):
    """A transformer block. Each branch reads the normalized residual stream and adds to the stream before the norm.

    With `norm_stream` it adds to the normalized stream instead, so that everything that reaches the next block has
    passed through a norm and its gain. docs/tasks.md shows how this affects learning.
    """

    def __init__(self, config: GPTConfig, layer: int, backend: str) -> None:
        super().__init__()
        self.norm_stream = config.norm_stream
        self.norm_1 = make_norm(config)
        self.attn = Attention(config, layer, backend)
        self.norm_2 = make_norm(config)
        self.mlp = (SwiGLU if config.mlp == "swiglu" else MLP)(config)
        self.drop = nn.Dropout(config.dropout_at("resid"))

    def forward(self, x: Tensor, rope: Rope, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        normed = self.norm_1(x)  # (B, T, C)
        x = (normed if self.norm_stream else x) + self.drop(self.attn(normed, rope, mask, cache))
        normed = self.norm_2(x)
        return (normed if self.norm_stream else x) + self.drop(self.mlp(normed))


class Attention(nn.Module):
    """Multi-head self-attention, optionally with grouped key and value heads, rotary positions and a cache."""

    def __init__(self, config: GPTConfig, layer: int, backend: str) -> None:
        super().__init__()
        C = config.n_embd
        self.layer, self.backend = layer, backend
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head or config.n_head
        self.D = C // config.n_head
        self.dropout, self.qk_norm = config.dropout_at("attn"), config.qk_norm
        self.c_attn = nn.Linear(C, C + 2 * self.n_kv_head * self.D, bias=config.has_bias("qkv"))
        self.c_proj = nn.Linear(C, C, bias=config.has_bias("proj"))

    def forward(self, x: Tensor, rope: Rope, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.queries_keys_values(x, rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, Hkv, all T, D)
        y = attend(q, k, v, self.backend, self.dropout if self.training else 0.0, mask)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))

    def queries_keys_values(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Project (B, T, C) to q (B, H, T, D) and k, v (B, Hkv, T, D), rotated and normalized as configured."""
        B, T, _ = x.shape
        qkv = self.c_attn(x).view(B, T, -1, self.D).transpose(1, 2)  # (B, H + 2 Hkv, T, D)
        q, k, v = qkv.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        return q, k, v
