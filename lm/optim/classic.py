"""Optimizers of torch, and Lion, which torch does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lm.base.checks import Check
from lm.optim.base import AdamLikeConfig, OptimizerConfig, evaluate_closure


@dataclass
class AdamWConfig(AdamLikeConfig):
    """AdamW (Loshchilov and Hutter 2019). Its fused step is the fastest one on a CPU and on a GPU."""

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(model), fused=fused, **self.moments)


@dataclass
class AdamConfig(AdamLikeConfig):
    """Adam (Kingma and Ba 2015). Weight decay is part of the gradient, so it is divided by the gradient's size too."""

    weight_decay: float = 0.0

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameter_groups(model), fused=fused, **self.moments)


@dataclass
class SGDConfig(OptimizerConfig):
    """Gradient descent with momentum. It learns slowly, because gradients of a transformer differ widely in size."""

    weight_decay: float = 0.0
    momentum: float = 0.9  # decay of the average of gradients
    nesterov: bool = False  # use Nesterov's form of momentum

    def check(self, check: Check) -> None:
        check.within("momentum", 0, 1)
        check.require(self.momentum > 0 or not self.nesterov, "nesterov", "be false without optimizer.momentum")

    def default_lr(self, n_embd: int) -> float:
        return 0.3

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.parameter_groups(model), momentum=self.momentum, nesterov=self.nesterov, fused=fused
        )

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 4 * numel if self.momentum else 0


@dataclass
class RMSpropConfig(OptimizerConfig):
    """RMSprop (Hinton's lecture of 2012): each gradient is divided by its running root mean square."""

    weight_decay: float = 0.0
    alpha: float = 0.99  # decay of the average of squared gradients
    momentum: float = 0.0  # decay of the average of updates; 0: none
    eps: float = 1e-8  # added to the denominator of the update

    def check(self, check: Check) -> None:
        check.above("eps", 0)
        for key in ("alpha", "momentum"):
            check.within(key, 0, 1)

    def default_lr(self, n_embd: int) -> float:
        return 0.128 / n_embd

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(self.parameter_groups(model), alpha=self.alpha, momentum=self.momentum, eps=self.eps)

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 4 * numel * (2 if self.momentum else 1)

    def working_bytes(self, numel: int, device: str) -> int:
        return 4 * numel


@dataclass
class LionConfig(OptimizerConfig):
    """Lion (Chen et al. 2023): the update is the sign of an average of gradients. It needs half of Adam's memory.

    Learning rates are a third to a tenth of Adam's, and weight decay is larger by the same factor.
    """

    weight_decay: float = 1.0
    beta1: float = 0.9  # weight of the average in the update's direction
    beta2: float = 0.99  # decay of the average of gradients

    def check(self, check: Check) -> None:
        for key in ("beta1", "beta2"):
            check.within(key, 0, 1)

    def default_lr(self, n_embd: int) -> float:
        return 0.18 / n_embd

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return Lion(self.parameter_groups(model), self.beta1, self.beta2)

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 4 * numel

    def working_bytes(self, numel: int, device: str) -> int:
        return 4 * numel


class Lion(torch.optim.Optimizer):
    """The Lion optimizer. Each parameter group has its own `lr` and `weight_decay`."""

    def __init__(self, groups: Any, beta1: float, beta2: float) -> None:
        super().__init__(groups, {"beta1": beta1, "beta2": beta2})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluate_closure(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["average"] = torch.zeros_like(p)
                average = state["average"]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(average.lerp(p.grad, 1 - group["beta1"]).sign_(), alpha=group["lr"])
                average.lerp_(p.grad, 1 - group["beta2"])
        return loss
