"""GPT above its blocks.

Shapes: B batch, T time, C width (n_embd), H heads, D head width (C/H), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lm.base.errors import UserError
from lm.model.attention import attend, make_mask
from lm.model.config import GPTConfig
from lm.model.kv_cache import KVCache
from lm.model.layers import MLP, SwiGLU, make_norm, rope_tables, rotate, sinusoids
from lm.model.loss import LossConfig, head_loss, softcapped

Rope = tuple[Tensor, Tensor] | None  # cosines and sines


MOST = 1 << 32  # numbers in a table of positions, which is in no file


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V), with T <= config.block_size.

    `backend` is how attention is computed (lm/model/attention.py); it changes no parameter.
    """

    cos: Tensor  # (T, D/2), under rope
    sin: Tensor
    sinusoids: Tensor  # (T, C), under sinusoidal positions

    def __init__(self, config: GPTConfig, vocab_size: int, backend: str = "auto") -> None:
        super().__init__()
        self.config, self.vocab_size, self.backend = config, vocab_size, backend
        C, T = config.n_embd, config.block_size
        rows = config.rows(vocab_size)
        self.wte = nn.Embedding(rows, C)
        self.wpe = nn.Embedding(T, C) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropped("embd"))
        self.blocks = nn.ModuleList(Block(config, layer, backend) for layer in range(config.n_layer))
        self.norm = make_norm(config)
        self.head = nn.Linear(C, rows, bias=config.bias_head)
        if config.tie_embeddings:
            self.head.weight = self.wte.weight
        if config.position == "rope":
            cos, sin = rope_tables(T, C // config.n_head, config.rope_theta)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        if config.position == "sinusoidal":
            # at full strength, as in the paper, which scales its embeddings up instead, an embedding of a few
            # hundredths would not be heard beside them
            usual = math.sqrt(2) * (1.0 if config.init == "unit" else 0.02)
            self.register_buffer("sinusoids", (config.position_scale or usual) * sinusoids(T, C), persistent=False)
        self.init_weights()

    def forward(
        self,
        ids: Tensor,
        documents: Tensor | None = None,
        targets: Tensor | None = None,
        loss: LossConfig | None = None,
    ) -> Any:
        """Return logits, or with `targets` (B, T) the objective and the sum of nats, without making all logits.

        `documents` (B, T), the number of the document that a token belongs to, keeps attention within it.
        """
        x = self.features(ids, documents)  # (B, T, C)
        if targets is None:
            return self.logits(x)  # (B, T, V)
        return head_loss(
            x.flatten(0, 1), self.head.weight, self.head.bias, targets.flatten(), loss or LossConfig(),
            self.vocab_size, self.config.logit_softcap,
        )  # fmt: skip

    def logits(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return softcapped(self.head(x)[..., : self.vocab_size], self.config.logit_softcap)

    def features(self, ids: Tensor, documents: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """What the head reads: ids (B, T) -> (B, T, C). With a `cache`, ids go on from the tokens it holds."""
        c, T = self.config, ids.size(1)
        start = cache.length if cache else 0
        end = start + T
        assert end <= c.block_size, f"{end} tokens exceed the context of {c.block_size}"
        x = self.wte(ids)  # (B, T, C)
        rope = None
        if self.wpe is not None:
            x = x + self.wpe.weight[start:end]
        elif c.position == "sinusoidal":
            x = x + self.sinusoids[start:end]
        elif c.position == "rope":
            rope = (self.cos[start:end], self.sin[start:end])
        if c.norm_embd:
            x = F.rms_norm(x, x.shape[-1:])
        x = self.drop(x)
        mask = make_mask(self.backend, T, end, ids.device, c.window, documents)
        for i, block in enumerate(self.blocks):
            if self.training and c.recompute_every and i % c.recompute_every == 0:
                x = checkpoint(block, x, rope, mask, use_reentrant=False)
            else:
                x = block(x, rope, mask, cache)
        if cache:
            cache.length = end
        return self.norm(x)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start at a loss within 2 % of ln V, with a residual stream that does not grow with depth (`init=normal`).

        | tensor        | normal                         | zero_proj | unit            | he_uniform                   |
        |---------------|--------------------------------|-----------|-----------------|------------------------------|
        | wte, wpe      | N(0, s), s at most GPT-2's .02 | as normal | N(0, 1)         | U(-a, a), a = 1 / sqrt(C)    |
        | head          | as wte                         | as normal | 0               | U(-a, a), a = sqrt(2 / C)    |
        | c_attn, c_fc  | N(0, 0.02): GPT-2              | as normal | N(0, 1/sqrt(C)) | U(-a, a), a = sqrt(2/fan in) |
        | c_proj        | N(0, 0.02 / sqrt(2 n_layer))   | 0         | 0               | U(-a, a), a = sqrt(2/fan in) |
        | biases, gains | 0, 1                           | as normal | as normal       | as normal                    |

        s: logits of variance C s^2 cost half of it in loss. c_proj: 2 n_layer branches add into the stream; from zero
        each block begins as the identity. unit is for Muon: what is read is of unit size, what is written zero, so
        that the first loss is ln V exactly (after nanochat, 2025). he_uniform is feste's: it begins some 0.3 nats above
        ln V. femtogpt draws everything from N(0, 0.02), gains too, but for biases, which are zero.
        """
        c = self.config
        cost = 0.012 * math.log(self.vocab_size)  # nats above ln V; smaller logits than need be would learn slower
        s = min(0.02, math.sqrt(2 * cost / c.n_embd))
        for name, p in self.named_parameters():
            embedding = name.startswith(("wte", "wpe", "head"))
            if name.endswith("bias"):
                p.zero_()
            elif c.init == "femtogpt":
                p.normal_(0.0, 0.02)
            elif p.dim() == 1:
                p.fill_(1.0)
            elif c.init == "he_uniform":
                a = math.sqrt((1 if name.startswith(("wte", "wpe")) else 2) / p.size(1))
                p.uniform_(-a, a)
            elif c.init == "unit":
                zero = name.startswith("head") or name.endswith("c_proj.weight")
                p.normal_(0.0, 0.0 if zero else 1.0 if embedding else c.n_embd**-0.5)
            elif embedding:
                p.normal_(0.0, s)
            elif name.endswith("c_proj.weight"):
                p.normal_(0.0, 0.02 / math.sqrt(2 * c.n_layer))
                if c.init == "zero_proj":
                    p.zero_()
            else:
                p.normal_(0.0, 0.02)

    @property
    def num_params(self) -> int:
        """Trainable numbers, a tied matrix counted once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token of a full context.

        Six for every weight that multiplies (Kaplan et al. 2020; a lookup multiplies nothing, the head does), and 12
        L C T for the two attention products over T positions, masked ones included (PaLM, Chowdhery et al. 2022).
        """
        c = self.config
        matrices = sum(p.numel() for n, p in self.named_parameters() if p.dim() == 2 and n.startswith("blocks"))
        span = min(c.block_size, c.window or c.block_size)
        return 6 * (matrices + self.head.weight.numel()) + 12 * c.n_layer * c.n_embd * span


def with_weights(config: GPTConfig, vocab_size: int, weights: Mapping[str, Tensor]) -> GPT:
    """A model with these weights, by their names.

    Raises UserError when they are not those of the model, and before anything is allocated that they do not fill: a
    file may claim what it likes.
    """
    stored = all(t.numel() * t.itemsize <= t.untyped_storage().nbytes() for t in weights.values())
    shapes: dict[str, torch.Size] = {}
    if stored and config.n_layer <= len(weights):
        with torch.device("meta"), suppress(RuntimeError):  # sizes beyond what can be counted
            shapes = {name: t.shape for name, t in GPT(config, vocab_size).state_dict().items()}
    if shapes != {name: t.shape for name, t in weights.items()} or config.block_size * config.n_embd > MOST:
        raise UserError("its weights are not those of the model that it describes")
    model = GPT(config, vocab_size)
    model.load_state_dict(weights)
    return model


class Block(nn.Module):
    """Each branch reads the stream normalised, and adds to the stream as it was. With `norm_stream` it adds to the
    normalised one: nothing reaches the next block but through a norm and its gain (docs/tasks.md shows what it costs).
    """

    def __init__(self, config: GPTConfig, layer: int, backend: str) -> None:
        super().__init__()
        self.norm_stream = config.norm_stream
        self.norm_1 = make_norm(config)
        self.attn = Attention(config, layer, backend)
        self.norm_2 = make_norm(config)
        self.mlp = (SwiGLU if config.mlp == "swiglu" else MLP)(config)
        self.drop = nn.Dropout(config.dropped("resid"))

    def forward(self, x: Tensor, rope: Rope, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        read = self.norm_1(x)  # (B, T, C)
        x = (read if self.norm_stream else x) + self.drop(self.attn(read, rope, mask, cache))
        read = self.norm_2(x)
        return (read if self.norm_stream else x) + self.drop(self.mlp(read))


class Attention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int, backend: str) -> None:
        super().__init__()
        C = config.n_embd
        self.layer, self.backend = layer, backend
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head or config.n_head
        self.D = C // config.n_head
        self.dropout, self.qk_norm = config.dropped("attn"), config.qk_norm
        self.c_attn = nn.Linear(C, C + 2 * self.n_kv_head * self.D, bias=config.biased("qkv"))
        self.c_proj = nn.Linear(C, C, bias=config.biased("proj"))

    def forward(self, x: Tensor, rope: Rope, mask: Any = None, cache: KVCache | None = None) -> Tensor:
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, -1, self.D).transpose(1, 2)  # (B, H + 2 Hkv, T, D)
        q, k, v = qkv.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, Hkv, all T, D)
        y = attend(q, k, v, self.backend, self.dropout if self.training else 0.0, mask)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))
