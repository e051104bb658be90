"""Direct logit attribution: divide a logit among everything that was added to the residual stream.

The logit is linear in the final residual stream once the scale of the final norm is held fixed, so the terms add up to
it exactly (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
Shapes: T time, C width, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from lm.analysis.trace import LayerTrace, Trace
from lm.base.errors import UserError
from lm.model.block import Block


@dataclass(frozen=True)
class Term:
    """The share of one part of the model in a logit.

    The name is embed, position, L0.H3 (layer 0, head 3), L0.attn.bias, L0.mlp, L0.mlp.bias, norm.bias or head.bias.
    """

    name: str
    value: float


@dataclass(frozen=True)
class Attribution:
    """A logit, or the difference of two logits, and its terms."""

    logit: float  # before the soft cap, if the model has one
    terms: list[Term]  # their values add up to the logit


@torch.no_grad()
def attribute(trace: Trace, token: int, against: int | None = None, position: int = -1) -> Attribution:
    """Attribute the logit of `token` after `position`, minus that of `against`, to the parts of the model.

    The trace must be of one text. The final norm, and the norm of the embeddings with model.norm_embd, keep the scale
    that they had in the forward pass. model.logit_softcap is not linear, so the logit is the one before the cap. A
    head's term includes the bias of its values. Raises UserError with model.norm_stream, because its blocks normalize
    the stream, so that the stream is not a sum.
    """
    model = trace.model
    if model.config.norm_stream:
        raise UserError(
            "model.norm_stream=true: the blocks normalize the residual stream itself, so a logit is not a sum of terms"
        )
    row = model.head.weight[token]
    bias = model.head.bias[token] if model.head.bias is not None else None
    if against is not None:
        row = row - model.head.weight[against]
        bias = None if bias is None else bias - model.head.bias[against]
    norm = cast(nn.LayerNorm | nn.RMSNorm, model.norm)
    scale, shift = linearized_norm(norm, trace.layers[-1].resid_post[0, position])
    direction = row.double() * scale
    if isinstance(norm, nn.LayerNorm):  # it subtracts the mean of every term
        direction = direction - direction.mean()
    terms = [Term(name, float(part.double() @ direction)) for name, part in parts(trace, position)]
    if shift is not None:
        terms.append(Term("norm.bias", float(row.double() @ shift.double())))
    if bias is not None:
        terms.append(Term("head.bias", float(bias)))
    logits = model.head(trace.normalized[0, position]).double()
    return Attribution(float(logits[token] - (logits[against] if against is not None else 0)), terms)


def linearized_norm(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the factor of each channel with which a norm scales `x` (C,), and the bias that it adds, if any.

    A layer norm also subtracts the mean before it multiplies.
    """
    x = x.double()
    if isinstance(norm, nn.LayerNorm):
        rms, shift = (x.var(correction=0) + norm.eps).sqrt(), norm.bias
    else:
        rms, shift = (x.square().mean() + (norm.eps or 0.0)).sqrt(), None
    gain = norm.weight.double() if norm.weight is not None else torch.ones_like(x)
    return gain / rms, shift


def parts(trace: Trace, position: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of everything that was added to the residual stream at a position, and the vector (C,)."""
    model, places = trace.model, trace.pos_embed
    scale = embedding_scale(trace, position)
    yield "embed", trace.embed[0, position] * scale
    if places is not None:
        yield "position", places[position] * scale
    for i, (block, layer) in enumerate(zip(cast(list[Block], model.blocks), trace.layers, strict=True)):
        for head, vector in enumerate(head_outputs(block, layer)[0, position]):
            yield f"L{i}.H{head}", vector
        if block.attn.c_proj.bias is not None:
            yield f"L{i}.attn.bias", block.attn.c_proj.bias
        bias = block.mlp.c_proj.bias
        yield f"L{i}.mlp", layer.mlp_out[0, position] - (0 if bias is None else bias)
        if bias is not None:
            yield f"L{i}.mlp.bias", bias


def head_outputs(block: Block, layer: LayerTrace) -> Tensor:
    """Return what each head adds to the residual stream: (B, T, H, C). Their sum is attn_out without the bias."""
    weight = block.attn.c_proj.weight.unflatten(1, (block.attn.n_head, -1))  # (C, H, D)
    return torch.einsum("bthd,chd->bthc", layer.z, weight)


def embedding_scale(trace: Trace, position: int) -> Tensor | float:
    """Return the factor of the norm of the embeddings at a position; 1 without model.norm_embd."""
    if not trace.model.config.norm_embd:
        return 1.0
    x = trace.embed[0, position]
    if trace.pos_embed is not None:
        x = x + trace.pos_embed[position]
    return (x.square().mean() + torch.finfo(x.dtype).eps).rsqrt()
