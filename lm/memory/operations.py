"""A training step as a list of operations, with the bytes that each keeps, works in and has as gradients.

B sequences of T tokens, N = B T, C width, H heads, Hkv key and value heads, V vocabulary as padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lm.model import GPTConfig, mlp_width


@dataclass(frozen=True)
class Op:
    """One operation, in bytes."""

    kind: str
    kept: int = 0  # for backward
    working: int = 0  # beside that, at the most, while its backward runs
    gradients: int = 0  # of its weights


@dataclass(frozen=True)
class Setup:
    """What decides the memory, the config of the model aside."""

    vocab_size: int
    micro_batch: int
    precision: str = "fp32"  # fp32 | bf16 | fp16 | bf16_true
    backend: str = "sdpa"  # manual | sdpa | flex
    device: str = "cpu"
    accumulate: int = 1  # micro-batches an optimizer step: from the second one on, gradients are there already
    chunk: int | None = None  # tokens whose logits exist at a time (LossConfig.tokens); None: all
    copies: int = 0  # of the weights, further ones: their average, gradients on the way to other devices
    snapshot: bool = False  # weights and optimizer's state once more, while a checkpoint is written

    @property
    def number(self) -> int:
        """Bytes of a weight."""
        return 2 if self.precision == "bf16_true" else 4


class Network:
    """The operations of a training step in forward order, as lm/model and torch's kernels make them."""

    def __init__(self, config: GPTConfig, setup: Setup) -> None:
        self.c, self.s = config, setup
        self.N, self.C, self.H = setup.micro_batch * config.block_size, config.n_embd, config.n_head
        self.Hkv = config.n_kv_head or config.n_head
        self.Ckv = self.Hkv * (self.C // self.H)
        self.V = config.rows(setup.vocab_size)
        self.e = 4 if setup.precision == "fp32" else 2  # bytes of a number in matrix products
        self.w = setup.number
        self.cast = self.e < self.w  # autocast copies weights into what it multiplies in
        self.cuda = setup.device == "cuda"
        self.stream = self.w * self.N * self.C  # the residual stream is as wide as weights, and so is its gradient

    def operations(self) -> Iterator[Op]:
        c, N, C, V, e = self.c, self.N, self.C, self.V, self.e
        own = 0 if c.tie_embeddings else V * C
        positions = c.block_size * C if c.position == "learned" else 0
        # a lookup's gradient is as large as its table, and a tied one is added to the head's
        yield Op("embeddings", 8 * N, working=self.stream + self.w * V * C, gradients=self.w * (own + positions))
        yield self.dropout(c.dropped("embd"), self.stream, self.w)
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
        """Its gradients are made in forward, from the logits of n tokens at a time (lm/model/loss.py)."""
        c, V, e = self.c, self.V, self.e
        matrix = 4 * V * self.C  # its gradient is added up in fp32
        softmax = 4 + 4 + (e == 2) * 2  # bytes a logit: log-probabilities, the logits in fp32, and as they were made
        product = e * V * self.C  # a chunk's share of the head's gradient
        copy = product if self.cast else 0
        forward = self.stream + copy + max(n * V * softmax, n * V * 4 + product)
        return Op(
            "head", e * self.N * self.C + matrix, max(forward, matrix + self.stream), matrix + 4 * c.bias_head * V
        )

    def block(self) -> Iterator[Op]:
        c, C, e, stream = self.c, self.C, self.e, self.stream
        yield self.norm()
        yield self.linear("attention", C, C + 2 * self.Ckv, c.biased("qkv"), stream)
        yield from self.attention()
        yield self.linear("attention", C, C, c.biased("proj"), stream)
        yield self.dropout(c.dropped("resid"), e * self.N * C, e)
        yield self.norm()
        hidden = mlp_width(c)
        units = e * self.N * hidden
        yield self.linear("MLP", C, 2 * hidden if c.mlp == "swiglu" else hidden, c.biased("mlp"), stream)
        kept = {"swiglu": 3, "relu": 0}.get(c.mlp, 1)  # beside the result, which the next product keeps
        yield Op("MLP", kept * units, working=stream + (4 if c.mlp == "swiglu" else 2) * units)
        yield self.dropout(c.dropout_mlp, units, e, stream)
        if c.dropout_mlp and c.mlp == "relu":
            yield Op("MLP", units)  # no longer what the next product keeps
        yield self.linear("MLP", hidden, C, c.biased("mlp"), stream)
        yield self.dropout(c.dropped("resid"), e * self.N * C, e, stream)

    def attention(self) -> Iterator[Op]:
        c, N, C, Ckv, H, e = self.c, self.N, self.C, self.Ckv, self.H, self.e
        p, rope = c.dropped("attn"), c.position == "rope"
        projected = e * N * (C + 2 * Ckv)  # alive as long as any of queries, keys and values is a view of it
        alive = False
        if c.qk_norm:  # in fp32
            alive = e == 4 and not rope
            inputs = 0 if alive else 4 * N * (C + Ckv)
            yield Op("attention", inputs + 4 * N * (H + self.Hkv), working=self.stream + projected + 8 * N * (C + Ckv))
        if self.s.backend == "manual" or (self.s.backend == "sdpa" and p and not self.cuda):
            # a CPU's fused kernel has no dropout; torch then multiplies in fp32
            w = 4 if self.s.backend == "sdpa" else e
            yield Op("attention", 3 * w * N * C + alive * projected, working=self.stream + 2 * projected)
            weight = 4 if self.cuda else w  # there autocast takes softmax in fp32
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
        # what the next product reads is the same tensor, if it lies as that wants it
        result = 0 if self.cuda or views else e * N * C
        yield Op("attention", projected + own + result + 4 * N * H, working=self.stream + 2 * projected + e * N * C)

    def norm(self) -> Op:
        c, gain = self.c, self.c.norm_gain
        if c.norm == "layernorm":
            weights = gain * self.C * (1 + c.biased("norm"))
            return Op("norms", self.stream + 8 * self.N, working=2 * self.stream, gradients=self.w * weights)
        # off a GPU it is made of simple operations, and the gain keeps what it multiplies
        twice = gain and not self.cuda
        return Op(
            "norms", (1 + twice) * self.stream + 4 * self.N, working=3 * self.stream, gradients=self.w * gain * self.C
        )

    def linear(self, kind: str, into: int, out: int, bias: bool, beside: int = 0) -> Op:
        """A matrix product keeps its input, and under autocast the copy of its weights in 16 bits."""
        copy = self.e * into * out if self.cast else 0
        working = beside + self.e * self.N * (into + out) + copy
        return Op(kind, self.e * self.N * into + copy, working, gradients=self.w * (into * out + bias * out))

    def dropout(self, p: float, size: int, e: int, beside: int = 0) -> Op:
        """Keeps its mask: of bools on a GPU, of numbers elsewhere. `size` in bytes of the input, `e` of each number."""
        return Op("dropout", (size // e if self.cuda else size) if p else 0, working=beside + 2 * size)

    def recomputed(self, block: list[Op]) -> Op:
        """A block that keeps its input alone, and makes the rest anew in backward."""
        peak, left, gradients = 0, sum(op.kept for op in block), 0
        for op in reversed(block):
            peak = max(peak, left + op.working + gradients)
            left, gradients = left - op.kept, gradients + op.gradients
        return Op("block inputs", self.stream, working=peak - self.stream, gradients=gradients)
