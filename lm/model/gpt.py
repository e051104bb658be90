"""The GPT model.

Shapes: B batch, T time, C width (n_embd), H heads, D head width (C/H), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lm.base.errors import UserError
from lm.model.attention import make_mask
from lm.model.block import Block
from lm.model.config import GPTConfig
from lm.model.kv_cache import KVCache
from lm.model.layers import make_norm, rope_tables, sinusoids
from lm.model.loss import LossConfig, apply_softcap, head_loss
from lm.model.meta import without_numbers

# Limit on the size of a table of positions. Such a table is not in the file, so the file does not limit it.
MAX_POSITION_NUMBERS = 1 << 32


class GPT(nn.Module):
    """A decoder-only transformer: ids (B, T) -> logits (B, T, V), with T <= config.block_size.

    `backend` is the implementation of attention (lm/model/attention.py). It does not affect the parameters.
    """

    cos: Tensor  # (T, D/2), with position=rope
    sin: Tensor
    sinusoids: Tensor  # (T, C), with position=sinusoidal

    def __init__(self, config: GPTConfig, vocab_size: int, backend: str = "auto") -> None:
        super().__init__()
        self.config, self.vocab_size, self.backend = config, vocab_size, backend
        C, T = config.n_embd, config.block_size
        rows = config.padded_vocab_size(vocab_size)
        self.wte = nn.Embedding(rows, C)
        self.wpe = nn.Embedding(T, C) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout_at("embd"))
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
            # The paper adds unscaled sinusoids to embeddings that it scales up. Our embeddings are initialized to a few
            # hundredths, so unscaled sinusoids would drown them.
            default_scale = math.sqrt(2) * (1.0 if config.init == "unit" else 0.02)
            scale = config.position_scale or default_scale
            self.register_buffer("sinusoids", scale * sinusoids(T, C), persistent=False)
        self.init_weights()

    @overload
    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(
        self, ids: Tensor, documents: Tensor | None, targets: Tensor, loss: LossConfig | None = None
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        ids: Tensor,
        documents: Tensor | None = None,
        targets: Tensor | None = None,
        loss: LossConfig | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits (B, T, V), or with `targets` (B, T) the loss.

        The loss is a pair: the objective, a mean in nats per target, and the cross-entropy, a sum in nats. It is
        computed without holding all logits at once (see lm/model/loss.py). `documents` (B, T) is the number of the
        document that each token belongs to; attention stays within a document.
        """
        x = self.features(ids, documents)  # (B, T, C)
        if targets is None:
            return self.logits(x)  # (B, T, V)
        return head_loss(
            x.flatten(0, 1), self.head.weight, self.head.bias, targets.flatten(), loss or LossConfig(),
            self.vocab_size, self.config.logit_softcap,
        )  # fmt: skip

    def logits(self, x: Tensor) -> Tensor:
        """Apply the output head: (..., C) -> (..., V)."""
        return apply_softcap(self.head(x)[..., : self.vocab_size], self.config.logit_softcap)

    def features(self, ids: Tensor, documents: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Return the input of the head: ids (B, T) -> (B, T, C). With a `cache`, the ids follow the tokens in it."""
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
        """Initialize all parameters according to `config.init`.

        With `normal` the first loss is within 2 % of ln V, and the residual stream does not grow with depth.

        | tensor        | normal                         | zero_proj | unit            | he_uniform                   |
        |---------------|--------------------------------|-----------|-----------------|------------------------------|
        | wte, wpe      | N(0, s), s at most GPT-2's .02 | as normal | N(0, 1)         | U(-a, a), a = 1 / sqrt(C)    |
        | head          | as wte                         | as normal | 0               | U(-a, a), a = sqrt(2 / C)    |
        | c_attn, c_fc  | N(0, 0.02): GPT-2              | as normal | N(0, 1/sqrt(C)) | U(-a, a), a = sqrt(2/fan in) |
        | c_proj        | N(0, 0.02 / sqrt(2 n_layer))   | 0         | 0               | U(-a, a), a = sqrt(2/fan in) |
        | biases, gains | 0, 1                           | as normal | as normal       | as normal                    |

        s is limited because logits of variance C s^2 raise the first loss by C s^2 / 2. c_proj is scaled down because
        2 n_layer branches add to the stream; with zeros, each block starts as the identity. unit is meant for Muon:
        inputs of a block have unit size and outputs are zero, so that the first loss is exactly ln V (after nanochat,
        2025). he_uniform is the initialization of feste; its first loss is about 0.3 nats above ln V. femtogpt draws
        all parameters from N(0, 0.02), gains included; only the biases are zero.
        """
        c = self.config
        # Nats above ln V. Logits that are smaller than necessary would slow down learning.
        cost = 0.012 * math.log(self.vocab_size)
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
                fan_in = max(1, p.size(1))  # a tiny mlp_ratio makes an MLP of width 0
                a = math.sqrt((1 if name.startswith(("wte", "wpe")) else 2) / fan_in)
                p.uniform_(-a, a)
            elif c.init == "unit":
                zero = name.startswith("head") or name.endswith("c_proj.weight")
                std = 1.0 if embedding else c.n_embd**-0.5
                p.normal_(0.0, 0.0 if zero else std)
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
        """Return the number of trainable parameters. A tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def flops_per_token(self) -> int:
        """Return the floating-point operations of forward and backward for one token of a full context.

        Six for each weight of a matrix product (Kaplan et al. 2020), which includes the head but not the embeddings,
        and 12 L C T for the two attention products over T positions, masked ones included (PaLM, Chowdhery et al.
        2022).
        """
        c = self.config
        matrices = sum(p.numel() for n, p in self.named_parameters() if p.dim() == 2 and n.startswith("blocks"))
        span = min(c.block_size, c.window or c.block_size)
        return 6 * (matrices + self.head.weight.numel()) + 12 * c.n_layer * c.n_embd * span


def with_weights(config: GPTConfig, vocab_size: int, weights: Mapping[str, Tensor]) -> GPT:
    """Build a model with the given weights, a mapping from parameter names to tensors.

    Raises UserError if names or shapes do not match the model. This is checked before memory is allocated, because a
    damaged or malicious file could describe an enormous model.
    """
    complete = all(t.numel() * t.itemsize <= t.untyped_storage().nbytes() for t in weights.values())
    shapes: dict[str, torch.Size] = {}
    if complete and config.n_layer <= len(weights):
        # Tables of positions have no weights; to compute them without numbers takes torch's compiler, thus seconds.
        no_table = config if config.position == "learned" else replace(config, position="none")
        with without_numbers(), suppress(RuntimeError):  # sizes that overflow
            shapes = {name: t.shape for name, t in GPT(no_table, vocab_size).state_dict().items()}
    too_large = config.block_size * config.n_embd > MAX_POSITION_NUMBERS
    if too_large or shapes != {name: t.shape for name, t in weights.items()}:
        raise UserError("its weights do not match the model that it describes")
    model = GPT(config, vocab_size)
    model.load_state_dict(weights)
    return model
