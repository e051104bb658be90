"""Record what a model computes in a forward pass.

Names are those of TransformerLens, the library that most notebooks on the inside of transformers are written for.
Shapes: B batch, T time, C width, H heads, Hkv key and value heads, D head width (C/H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm.base.errors import UserError
from lm.model import GPT
from lm.model.block import Attention, Block


@dataclass
class LayerTrace:
    """The values that one block computed."""

    resid_pre: Tensor  # (B, T, C) the residual stream before the block
    q: Tensor  # (B, H, T, D) as attention uses it: rotated and normalized as configured
    k: Tensor  # (B, Hkv, T, D)
    v: Tensor  # (B, Hkv, T, D)
    mask: Tensor | None  # what attention may look at; None: everything before
    z: Tensor  # (B, T, H, D) the weighted sums of values, the output of attention before its projection
    attn_out: Tensor  # (B, T, C)
    resid_mid: Tensor  # (B, T, C) the residual stream between attention and MLP
    mlp_out: Tensor  # (B, T, C)
    resid_post: Tensor  # (B, T, C) the residual stream after the block

    @property
    def pattern(self) -> Tensor:
        """The attention weights (B, H, T, T), query by key, in fp32 or better: they are computed again from q and k."""
        q, k = (x if x.dtype == torch.float64 else x.float() for x in (self.q, self.k))
        k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
        scores = q @ k.mT * q.size(-1) ** -0.5
        mask = torch.ones_like(scores, dtype=torch.bool).tril() if self.mask is None else self.mask
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)


@dataclass
class Trace:
    """The values that a model computed in its last forward pass inside `record`."""

    model: GPT
    ids: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))  # (B, T)
    embed: Tensor = field(default_factory=lambda: torch.empty(0))  # (B, T, C) token embeddings alone
    layers: list[LayerTrace] = field(default_factory=list)
    normalized: Tensor = field(default_factory=lambda: torch.empty(0))  # (B, T, C) the input of the head

    @property
    def pos_embed(self) -> Tensor | None:
        """The positions (T, C) that were added to the token embeddings; None if the model adds none."""
        table = self.model.wpe.weight if self.model.wpe is not None else getattr(self.model, "sinusoids", None)
        return None if table is None else table[: self.ids.size(1)]


@contextmanager
def record(model: GPT) -> Iterator[Trace]:
    """Record the forward passes within the `with` block; the trace holds the last one.

    The model is in evaluation mode inside the block. It is hooked only there, and otherwise untouched. Values keep
    their gradients if gradients are enabled. Raises UserError for a compiled model, whose hooks would not be called.
    """
    if model._compiled_call_impl is not None or any(b._compiled_call_impl is not None for b in model.blocks):
        raise UserError("a compiled model cannot be recorded: load its checkpoint instead")
    trace, training = Trace(model), model.training

    def start(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        trace.ids, trace.embed, trace.layers = args[0], out, []

    def finish(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        trace.normalized = out

    hooks = [model.wte.register_forward_hook(start), model.norm.register_forward_hook(finish)]
    for block in model.blocks:
        hooks += hook_block(cast(Block, block), lambda layer: trace.layers.append(layer))
    try:
        model.eval()
        yield trace
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)


@torch.no_grad()
def trace_ids(model: GPT, ids: Tensor) -> Trace:
    """Return the trace of tokens (B, T)."""
    with record(model) as trace:
        model(ids.to(model.wte.weight.device))
    return trace


def hook_block(block: Block, emit: Callable[[LayerTrace], None]) -> list[RemovableHandle]:
    """Register the hooks that build the LayerTrace of every forward pass of a block, and pass it to `emit`."""
    seen: dict[str, Any] = {}

    def attention(attn: Attention, args: tuple[Any, ...], out: Tensor) -> None:
        x, rope, mask, cache = args
        if cache is not None:
            raise UserError("generation with a cache cannot be recorded: call the model on the whole text")
        seen["q"], seen["k"], seen["v"] = attn.queries_keys_values(x, rope)
        seen["mask"], seen["attn_out"] = dense_mask(mask, x.size(1)), out

    def projection(module: nn.Module, args: tuple[Tensor]) -> None:
        seen["z"] = args[0].unflatten(-1, (block.attn.n_head, -1))

    def middle(module: nn.Module, args: tuple[Tensor]) -> None:
        seen["resid_mid"] = args[0]

    def mlp(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        seen["mlp_out"] = out

    def finish(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        emit(LayerTrace(resid_pre=args[0], resid_post=out, **seen))
        seen.clear()

    return [
        block.attn.register_forward_hook(attention),
        block.attn.c_proj.register_forward_pre_hook(projection),
        block.norm_2.register_forward_pre_hook(middle),
        block.mlp.register_forward_hook(mlp),
        block.register_forward_hook(finish),
    ]


def dense_mask(mask: Any, length: int) -> Tensor | None:
    """Return a mask of lm.model.attention as a tensor; flex attention has one of blocks."""
    if mask is None or isinstance(mask, Tensor):
        return mask
    from torch.nn.attention.flex_attention import create_mask

    batch, heads = mask.shape[:2]
    return create_mask(mask.mask_mod, batch, heads, length, length, device=str(mask.kv_num_blocks.device))
