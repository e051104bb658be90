"""A training step as a list of operations, with the bytes that each saves, works in and has as gradients.

Shapes: B sequences of T tokens, N = B T, C width, H heads, Hkv key and value heads, V padded vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lm.model import GPTConfig, mlp_width


@dataclass(frozen=True)
class Op:
    """The memory of one operation, in bytes."""

    kind: str
    saved: int = 0  # for the backward pass
    working: int = 0  # at most, in addition, while its backward pass runs
    gradients: int = 0  # gradients of its weights


@dataclass(frozen=True)
class Setup:
    """All settings that determine memory use, besides the config of the model."""

    vocab_size: int
    micro_batch: int
    precision: str = "fp32"  # fp32 | bf16 | fp16 | bf16_true
    backend: str = "sdpa"  # manual | sdpa | flex
    device: str = "cpu"
    accumulate: int = 1  # micro-batches per optimizer step: from the second one on, gradients already exist
    chunk: int | None = None  # tokens whose logits are in memory at a time (LossConfig.tokens_per_chunk); None: all
    copies: int = 0  # additional copies of the weights: their average, communication buffers of several devices
    snapshot: bool = False  # a second copy of weights and optimizer state, while a checkpoint is written

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight."""
        return 2 if self.precision == "bf16_true" else 4


class Network:
    """The operations of a training step in forward order, as lm/model and torch's kernels run them."""

    def __init__(self, config: GPTConfig, setup: Setup) -> None:
        self.c, self.s = config, setup
        self.N, self.C, self.H = setup.micro_batch * config.block_size, config.n_embd, config.n_head
        self.Hkv = config.n_kv_head or config.n_head
        self.Ckv = self.Hkv * (self.C // self.H)
        self.V = config.padded_vocab_size(setup.vocab_size)
        self.e = 4 if setup.precision == "fp32" else 2  # bytes per number in matrix products
        self.w = setup.weight_bytes
        self.cast = self.e < self.w  # autocast converts weights to 16 bits
        self.cuda = setup.device == "cuda"
        self.stream = self.w * self.N * self.C  # it and its gradient have the dtype of the weights

    def operations(self) -> Iterator[Op]:
        c, N, C, V, e = self.c, self.N, self.C, self.V, self.e
        own = 0 if c.tie_embeddings else V * C
        positions = c.block_size * C if c.position == "learned" else 0
        # the gradient of a lookup is as large as its table; with tied embeddings it is added to that of the head
        yield Op("embeddings", 8 * N, working=self.stream + self.w * V * C, gradients=self.w * (own + positions))
        yield self.dropout(c.dropout_at("embd"), self.stream, self.w)
        block = list(self.block())
        for i in range(c.n_layer):
            if c.recompute_every and i % c.recompute_every == 0:
                yield self.recomputed(block)
            else:
                yield from block
        yield self.norm()
        if self.s.chunk and self.s.chunk < N:
            yield self.chunked_head(self.s.chunk)
            return
        yield self.linear("head", C, V, c.bias_head)
        if c.logit_softcap is not None:
            yield Op("logits", e * N * V, working=2 * e * N * V)
        if e == 2:
            yield Op("logits", working=(4 + e) * N * V)  # from 16 bits to fp32
        yield Op("logits", 4 * N * V + 8 * N, working=8 * N * V)  # log-probabilities in fp32

    def chunked_head(self, n: int) -> Op:
        """Return the head with the loss in chunks of n tokens. It computes gradients in forward (lm/model/loss.py)."""
        c, V, e = self.c, self.V, self.e
        matrix = 4 * V * self.C  # its gradient is accumulated in fp32
        softmax = 4 + 4 + (e == 2) * 2  # bytes per logit: log-probabilities, logits in fp32, logits in 16 bits
        product = e * V * self.C  # contribution of a chunk to the gradient of the head
        copy = product if self.cast else 0
        forward = self.stream + copy + max(n * V * softmax, n * V * 4 + product)
        return Op(
            "head", e * self.N * self.C + matrix, max(forward, matrix + self.stream), matrix + 4 * c.bias_head * V
        )

    def block(self) -> Iterator[Op]:
        c, C, e, stream = self.c, self.C, self.e, self.stream
        yield self.norm()
        yield self.linear("attention", C, C + 2 * self.Ckv, c.has_bias("qkv"), stream)
        yield from self.attention()
        yield self.linear("attention", C, C, c.has_bias("proj"), stream)
        yield self.dropout(c.dropout_at("resid"), e * self.N * C, e)
        yield self.norm()
        hidden = mlp_width(c)
        units = e * self.N * hidden
        yield self.linear("MLP", C, 2 * hidden if c.mlp == "swiglu" else hidden, c.has_bias("mlp"), stream)
        saved = {"swiglu": 3, "relu": 0}.get(c.mlp, 1)  # in addition to the result, which the next matrix product saves
        yield Op("MLP", saved * units, working=stream + (4 if c.mlp == "swiglu" else 2) * units)
        yield self.dropout(c.dropout_mlp, units, e, stream)
        if c.dropout_mlp and c.mlp == "relu":
            yield Op("MLP", units)  # because of dropout, it is not the tensor that the next product saves
        yield self.linear("MLP", hidden, C, c.has_bias("mlp"), stream)
        yield self.dropout(c.dropout_at("resid"), e * self.N * C, e, stream)

    def attention(self) -> Iterator[Op]:
        c, N, C, Ckv, H, e = self.c, self.N, self.C, self.Ckv, self.H, self.e
        p, rope = c.dropout_at("attn"), c.position == "rope"
        projected = e * N * (C + 2 * Ckv)  # in memory as long as queries, keys or values are views of it
        alive = False
        if c.qk_norm:  # in fp32
            alive = e == 4 and not rope
            inputs = 0 if alive else 4 * N * (C + Ckv)
            yield Op("attention", inputs + 4 * N * (H + self.Hkv), working=self.stream + projected + 8 * N * (C + Ckv))
        if self.s.backend == "manual" or (self.s.backend == "sdpa" and p and not self.cuda):
            # the fused kernel of a CPU has no dropout; torch then computes products in fp32
            w = 4 if self.s.backend == "sdpa" else e
            yield Op("attention", 3 * w * N * C + alive * projected, working=self.stream + 2 * projected)
            weight = 4 if self.cuda else w  # on a GPU autocast computes the softmax in fp32
            scores = N * H * c.block_size
            weights = weight * scores
            if p:
                weights += (1 if self.cuda else w) * scores + w * scores
            elif weight != w:
                weights += w * scores
            yield Op("attention weights", weights, working=self.stream + e * N * C + 2 * weight * scores)
            return
        views = not rope and not c.qk_norm
        own = 0 if views else e * N * (C + Ckv)
        # the next product saves the same tensor, if its memory layout is suitable
        result = 0 if self.cuda or views else e * N * C
        yield Op("attention", projected + own + result + 4 * N * H, working=self.stream + 2 * projected + e * N * C)

    def norm(self) -> Op:
        c, gain = self.c, self.c.norm_gain
        if c.norm == "layernorm":
            weights = gain * self.C * (1 + c.has_bias("norm"))
            return Op("norms", self.stream + 8 * self.N, working=2 * self.stream, gradients=self.w * weights)
        # without a GPU kernel it consists of simple operations, and the gain saves its input
        twice = gain and not self.cuda
        return Op(
            "norms", (1 + twice) * self.stream + 4 * self.N, working=3 * self.stream, gradients=self.w * gain * self.C
        )

    def linear(self, kind: str, into: int, out: int, bias: bool, in_memory: int = 0) -> Op:
        """Return a matrix product, which saves its input, and under autocast the copy of its weights in 16 bits."""
        copy = self.e * into * out if self.cast else 0
        working = in_memory + self.e * self.N * (into + out) + copy
        return Op(kind, self.e * self.N * into + copy, working, gradients=self.w * (into * out + bias * out))

    def dropout(self, p: float, size: int, e: int, in_memory: int = 0) -> Op:
        """Return a dropout, which saves its mask: booleans on a GPU, numbers elsewhere.

        `size` is the size of the input and `e` of one of its numbers, in bytes.
        """
        return Op("dropout", (size // e if self.cuda else size) if p else 0, working=in_memory + 2 * size)

    def recomputed(self, block: list[Op]) -> Op:
        """Return a block that saves only its input, and recomputes the rest in the backward pass."""
        peak, left, gradients = 0, sum(op.saved for op in block), 0
        for op in reversed(block):
            peak = max(peak, left + op.working + gradients)
            left, gradients = left - op.saved, gradients + op.gradients
        return Op("block inputs", self.stream, working=peak - self.stream, gradients=gradients)
