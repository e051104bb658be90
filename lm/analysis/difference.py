"""Difference between two checkpoints by tensor, by head and by token.

Shapes: C is the embedding width, H the number of heads, D the head width (C/H).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lm.analysis.tokens import token_names
from lm.model import GPT, GPTConfig
from lm.run.checkpoint import Checkpoint


@dataclass(frozen=True)
class TensorDifference:
    """Cosine and distance of one parameter in both models."""

    name: str
    shape: list[int]
    tokens: int | None  # only the rows of this many shared tokens were compared; None: the whole tensor
    cosine: float
    distance: float  # ||a - b|| / ||a||


@dataclass(frozen=True)
class HeadDifference:
    """Cosines of the query, key, value and output weights of one head.

    Heads that share a key and value head have the same k and v.
    """

    block: int
    head: int
    q: float
    k: float
    v: float
    proj: float


@dataclass(frozen=True)
class TokenDifference:
    """Cosine of the embeddings of one token in both models."""

    token: str
    id: int
    other_id: int
    cosine: float


@dataclass(frozen=True)
class Difference:
    """Difference between two checkpoints."""

    tensors: list[TensorDifference]
    only_run: list[str]
    only_other: list[str]
    other_shape: dict[str, list[list[int]]]
    heads: list[HeadDifference]  # empty if the models differ in the number or width of their heads
    shared_tokens: int
    tokens: list[TokenDifference]  # lowest cosine first; empty if the embedding widths differ


def compare_checkpoints(a: Checkpoint, b: Checkpoint, shared: tuple[Tensor, Tensor], top: int) -> Difference:
    """Measure the difference between `a` and `b`.

    If the vocabularies differ, embedding and head are compared only over the rows of the tokens that both have.

    Args:
        shared: the ids of these tokens in `a` and in `b`, from `lm.run.init_from.shared_tokens`.
        top: the number of tokens to list whose embeddings differ most.
    """
    mine, other = dict(a.model.named_parameters()), dict(b.model.named_parameters())
    rows, others = shared
    same_ids = torch.equal(rows, others) and len(rows) == a.tokenizer.vocab_size == b.tokenizer.vocab_size
    tensors, other_shape = [], {}
    for name in (name for name in mine if name in other):
        x, y = mine[name].detach(), other[name].detach()
        by_token = name.startswith(("wte", "head")) and not same_ids
        if x.shape != y.shape:
            other_shape[name] = [list(x.shape), list(y.shape)]
            continue
        shape = list(x.shape)
        x, y = (x[rows], y[others]) if by_token else (x, y)
        tokens = len(rows) if by_token else None
        tensors.append(TensorDifference(name, shape, tokens, float(cosine(x.flatten(), y.flatten())), distance(x, y)))
    changed = []
    if a.model.config.n_embd == b.model.config.n_embd:
        cosines = cosine(a.model.wte.weight.detach()[rows], b.model.wte.weight.detach()[others])  # (shared,)
        values, at = cosines.topk(min(top, len(rows)), largest=False)
        names = token_names(a.tokenizer)
        lowest = zip(rows[at].tolist(), others[at].tolist(), values.tolist(), strict=True)
        changed = [TokenDifference(names[i], i, j, value) for i, j, value in lowest if value < 1]
    return Difference(
        tensors, [n for n in mine if n not in other], [n for n in other if n not in mine], other_shape,
        compare_heads(a.model, b.model), len(rows), changed,
    )  # fmt: skip


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine over the last dimension, (..., n) -> (...), in fp64.

    It is exactly 1 for equal vectors and nan if only one of them is zero.
    """
    a, b = a.double(), b.double()
    dot, aa, bb = torch.linalg.vecdot(a, b), torch.linalg.vecdot(a, a), torch.linalg.vecdot(b, b)
    return torch.where((a == b).all(-1), 1.0, (dot / (aa * bb).sqrt()).clamp(-1, 1))


def distance(a: Tensor, b: Tensor) -> float:
    """Return ||a - b|| / ||a||: 0 for equal tensors, infinite if only `a` is zero."""
    return 0.0 if torch.equal(a, b) else float((a.double() - b.double()).norm() / a.double().norm())


def compare_heads(a: GPT, b: GPT) -> list[HeadDifference]:
    """Compare the heads of the blocks that both models have; return [] if the heads differ in number or width."""

    def head_shape(config: GPTConfig) -> tuple[int, ...]:
        return config.n_embd, config.n_head, config.n_kv_head or config.n_head

    C, H, kv = head_shape(a.config)
    if head_shape(b.config) != (C, H, kv):
        return []
    found = []
    for block in range(min(a.config.n_layer, b.config.n_layer)):
        name = f"blocks.{block}.attn.c_{{}}.weight"
        reading, writing = ([m.get_parameter(name.format(x)).detach() for m in (a, b)] for x in ("attn", "proj"))
        reads = cosine(*(w.view(H + 2 * kv, -1) for w in reading))  # (H + 2 kv)
        q, k, v = (part.tolist() for part in reads.split((H, kv, kv)))
        proj = cosine(*(w.view(C, H, -1).transpose(0, 1).flatten(1) for w in writing)).tolist()  # of (H, C D)
        found += [HeadDifference(block, h, q[h], k[h * kv // H], v[h * kv // H], proj[h]) for h in range(H)]
    return found
