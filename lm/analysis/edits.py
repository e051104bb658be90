"""Change values inside a model during its forward pass.

Shapes: B batch, T time, C width, H heads, D head width (C/H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm.model import GPT
from lm.model.block import Block

SITES = ("resid_pre", "attn_out", "mlp_out", "z")


@dataclass(frozen=True)
class Edit:
    """A change of one site of one layer.

    `change` receives a copy of the value, (B, T, C) or for site z (B, T, H, D), and returns it changed.
    """

    site: str  # one of SITES, named as in lm.analysis.trace
    layer: int
    change: Callable[[Tensor], Tensor]


@contextmanager
def edited(model: GPT, edits: Sequence[Edit]) -> Iterator[None]:
    """Apply the edits to every forward pass within the `with` block. The model is in evaluation mode there."""
    training, hooks = model.training, [hook_edit(cast(Block, model.blocks[edit.layer]), edit) for edit in edits]
    try:
        model.eval()
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)


def hook_edit(block: Block, edit: Edit) -> RemovableHandle:
    """Register the hook of an edit."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (edit.change(args[0].clone()), *args[1:])

    def before_projection(module: nn.Module, args: tuple[Tensor]) -> Tensor:
        z = args[0].unflatten(-1, (block.attn.n_head, -1))
        return edit.change(z.clone()).flatten(-2)

    def after(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return edit.change(out.clone())

    if edit.site == "resid_pre":
        return block.register_forward_pre_hook(before)
    if edit.site == "z":
        return block.attn.c_proj.register_forward_pre_hook(before_projection)
    assert edit.site in SITES, edit.site
    return (block.attn if edit.site == "attn_out" else block.mlp).register_forward_hook(after)
