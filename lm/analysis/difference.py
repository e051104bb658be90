"""Two checkpoints tensor by tensor, head by head, token by token. C width, H heads, D head width (C/H)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lm.analysis.tokens import token_names
from lm.model import GPT, GPTConfig
from lm.run.checkpoint import Checkpoint


@dataclass(frozen=True)
class Compared:
    name: str
    shape: list[int]
    tokens: int | None  # compared row by row of those that both vocabularies have; None: as it is
    cosine: float
    distance: float  # ||a - b|| / ||a||


@dataclass(frozen=True)
class Head:
    """Cosines of what one head reads and writes with. Heads that share a key and value head show the same k and v."""

    block: int
    head: int
    q: float
    k: float
    v: float
    proj: float


@dataclass(frozen=True)
class Turned:
    token: str
    id: int
    other_id: int
    cosine: float


@dataclass(frozen=True)
class Difference:
    tensors: list[Compared]
    only_run: list[str]
    only_other: list[str]
    other_shape: dict[str, list[list[int]]]
    heads: list[Head]  # empty where heads are of another number or width
    shared_tokens: int
    tokens: list[Turned]  # those that turned the most; empty where embeddings are of another width


def compare_checkpoints(a: Checkpoint, b: Checkpoint, shared: tuple[Tensor, Tensor], top: int) -> Difference:
    """Measure how far `b` is from `a`.

    `shared` are the ids of the tokens that both have, from `lm.run.init_from.shared_tokens`.

    Under another vocabulary, embedding and head are compared over the rows of those tokens.
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
        same = float(cosine(x.flatten(), y.flatten())), distance(x, y)
        tensors.append(Compared(name, shape, len(rows) if by_token else None, *same))
    turned = []
    if a.model.config.n_embd == b.model.config.n_embd:
        cosines = cosine(a.model.wte.weight.detach()[rows], b.model.wte.weight.detach()[others])  # (shared,)
        values, at = cosines.topk(min(top, len(rows)), largest=False)
        called = token_names(a.tokenizer)
        found = zip(rows[at].tolist(), others[at].tolist(), values.tolist(), strict=True)
        turned = [Turned(called[i], i, j, value) for i, j, value in found if value < 1]
    return Difference(
        tensors, [n for n in mine if n not in other], [n for n in other if n not in mine], other_shape,
        heads(a.model, b.model), len(rows), turned,
    )  # fmt: skip


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(..., n) -> (...), in fp64: exactly 1 where they are equal, nan where one is zero."""
    a, b = a.double(), b.double()
    dot, aa, bb = torch.linalg.vecdot(a, b), torch.linalg.vecdot(a, a), torch.linalg.vecdot(b, b)
    return torch.where((a == b).all(-1), 1.0, (dot / (aa * bb).sqrt()).clamp(-1, 1))


def distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||a||: 0 where they are equal, infinite where only a is zero."""
    return 0.0 if torch.equal(a, b) else float((a.double() - b.double()).norm() / a.double().norm())


def heads(a: GPT, b: GPT) -> list[Head]:
    def split(config: GPTConfig) -> tuple[int, ...]:
        return config.n_embd, config.n_head, config.n_kv_head or config.n_head

    C, H, kv = split(a.config)
    if split(b.config) != (C, H, kv):
        return []
    found = []
    for block in range(min(a.config.n_layer, b.config.n_layer)):
        name = f"blocks.{block}.attn.c_{{}}.weight"
        reading, writing = ([m.get_parameter(name.format(x)).detach() for m in (a, b)] for x in ("attn", "proj"))
        reads = cosine(*(w.view(H + 2 * kv, -1) for w in reading))  # (H + 2 kv)
        q, k, v = (part.tolist() for part in reads.split((H, kv, kv)))
        proj = cosine(*(w.view(C, H, -1).transpose(0, 1).flatten(1) for w in writing)).tolist()  # of (H, C D)
        found += [Head(block, h, q[h], k[h * kv // H], v[h * kv // H], proj[h]) for h in range(H)]
    return found
