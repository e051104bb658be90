"""Muon for the matrices of the blocks and AdamW for all other parameters, in one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lm.base.checks import Check
from lm.base.hardware import has_fast_bf16
from lm.optim.base import AdamLikeConfig, evaluate_closure

# Coefficients of an odd polynomial. Iterating it moves singular values close to 1 (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


@dataclass
class MuonConfig(AdamLikeConfig):
    """Muon (Jordan et al. 2024): orthogonalized momentum, so that all directions of a matrix learn at the same speed.

    `lr` is the learning rate of the matrices. AdamW trains embeddings, head and vectors; their learning rates follow
    from the ratios.
    """

    weight_decay: float = 0.0
    embedding_lr_ratio: float = 1.5
    head_lr_ratio: float = 0.15
    vector_lr_ratio: float = 0.15
    beta1: float = 0.8  # of AdamW for embeddings, head and vectors: decay of the average of gradients
    beta2: float = 0.95  # of AdamW for embeddings, head and vectors: decay of the average of squared gradients
    eps: float = 1e-10  # of AdamW for embeddings, head and vectors
    momentum: float = 0.95  # of Muon for the blocks' matrices: decay of the average of gradients
    ns_steps: int = 5  # Newton-Schulz iterations that orthogonalize an update

    def check(self, check: Check) -> None:
        super().check(check)
        check.within("momentum", 0, 1)
        check.at_least("ns_steps", 1)

    def default_lr(self, n_embd: int) -> float:
        return 0.02

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = []
        for group in self.parameter_groups(model):
            if group["kind"] != "matrix":
                groups.append(group | {"muon": False})
                continue
            by_shape: dict[Any, list[tuple[str, Tensor]]] = {}  # matrices of one shape share a batch of matrix products
            for name, p in group["params"]:
                by_shape.setdefault((p.shape, count_pieces(model, name)), []).append((name, p))
            for (_, count), params in by_shape.items():
                groups.append(group | {"params": params, "muon": True, "pieces": count})
        return Muon(groups, momentum=self.momentum, ns_steps=self.ns_steps, fused=fused, **self.moments)

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 4 * numel if matrix else 8 * numel

    def working_bytes(self, numel: int, device: str) -> int:
        return 16 * numel


def count_pieces(model: nn.Module, name: str) -> int:
    """Return how many matrices of the same shape a weight consists of: query, key and value; gate and value."""
    config: Any = getattr(model, "config", None)
    if name.endswith("attn.c_attn.weight") and config.n_kv_head in (None, config.n_head):
        return 3
    return 2 if name.endswith("mlp.c_fc.weight") and config.mlp == "swiglu" else 1


class Muon(torch.optim.AdamW):
    """The Muon optimizer. Groups with muon=True take an orthogonalized step; torch's AdamW updates the others."""

    def __init__(self, groups: Any, *, momentum: float, ns_steps: int, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self.momentum, self.ns_steps = momentum, ns_steps

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluate_closure(closure)
        everything = self.param_groups
        for group in everything:
            if group["muon"]:
                self._orthogonal_step(group)
        self.param_groups = [group for group in everything if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = everything
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None and p.numel()]  # an MLP may have width 0
        if not params:
            return
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
                self.state[p]["step"] = torch.zeros(())  # AdamW expects it when it loads a state
        grads = [p.grad for p in params]
        averages = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(averages, grads, 1 - self.momentum)
        ahead = torch._foreach_lerp(grads, averages, self.momentum)  # Nesterov momentum
        rows, columns = params[0].shape
        pieces = group["pieces"]
        batch = torch.stack(list(ahead)).view(-1, rows // pieces, columns)
        update = orthogonalize(batch, self.ns_steps).reshape(len(params), rows, columns)
        # scale up tall matrices, so that their outputs are as large as those of square ones (Jordan et al. 2024)
        size = max(1.0, rows / pieces / columns) ** 0.5
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(update.to(params[0].dtype).unbind()), alpha=-group["lr"] * size)


def orthogonalize(batch: Tensor, steps: int) -> Tensor:
    """Move the singular values of matrices (K, rows, columns) close to 1, with `steps` Newton-Schulz iterations.

    It computes in bf16, or in fp32 if the device emulates bf16. The singular values end up between 0.7 and 1.2, which
    is close enough.
    """
    a, b, c = QUINTIC
    x = batch.bfloat16() if has_fast_bf16(batch.device.type) else batch
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT  # (K, r, r)
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
