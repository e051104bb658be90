"""Settings that all optimizers share: learning rate, weight decay, clipping, and parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from lm.base.checks import Check
from lm.base.errors import UserError


@dataclass
class OptimizerConfig:
    """Base class of the settings of optimizers.

    A subclass adds its fields, and implements `default_lr`, `build` and `state_bytes`.
    """

    # peak learning rate, shaped by schedule=; null: a default for this optimizer and model.n_embd
    lr: float | None = None
    weight_decay: float = 0.1  # weight decay of matrices; gains and biases are not decayed
    grad_clip: float = 1.0  # clip the global gradient norm to this value; 0: no clipping
    embedding_lr_ratio: float = 1.0  # learning rate of token and position embeddings, as a multiple of lr
    head_lr_ratio: float = 1.0  # learning rate of an untied output head, as a multiple of lr
    vector_lr_ratio: float = 1.0  # learning rate of gains and biases, as a multiple of lr

    def __post_init__(self) -> None:
        check = Check("optimizer", self)
        check.above("lr", 0)
        for key in ("weight_decay", "grad_clip", "embedding_lr_ratio", "head_lr_ratio", "vector_lr_ratio"):
            check.at_least(key, 0)
        self.check(check)
        check.done()

    def check(self, check: Check) -> None:
        """Check the fields that a subclass adds."""

    def default_lr(self, n_embd: int) -> float:
        """Return the peak learning rate to use if `lr` is not set."""
        raise NotImplementedError

    def with_default_lr(self, n_embd: int) -> Self:
        """Return this config with `lr` set, to its default if necessary."""
        return self if self.lr is not None else replace(self, lr=self.default_lr(n_embd))

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        """Build the optimizer. `lr` must be set, see `with_default_lr`.

        `fused` runs a step as one kernel, which does not work with a gradient scaler (fp16). Raises UserError if a
        group has its own learning rate and the model has no parameters of this group.
        """
        raise NotImplementedError

    def state_bytes(self, numel: int, matrix: bool) -> int:
        """Return the bytes of state for a tensor of `numel` numbers. `matrix` is True for matrices of the blocks."""
        raise NotImplementedError

    def working_bytes(self, numel: int, device: str) -> int:
        """Return the bytes of temporary memory for the update of a tensor. A fused kernel needs none."""
        return 0

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameter groups: matrices of the blocks, embeddings, the head, and vectors, which do not decay.

        Each trainable parameter is in exactly one group. The trainer multiplies the scheduled learning rate by the
        `lr_ratio` of the group. Raises UserError for a ratio of a group without parameters.
        """
        defaults = type(self)()
        kinds: dict[str, list[tuple[str, Tensor]]] = {"matrix": [], "embedding": [], "head": [], "vector": []}
        for name, p in model.named_parameters():  # a tied head counts as an embedding
            if p.requires_grad:
                kinds[parameter_kind(name, p)].append((name, p))  # torch saves the names in checkpoints
        groups = []
        for kind, params in kinds.items():
            ratio = getattr(self, f"{kind}_lr_ratio", 1.0)
            if not params and ratio != getattr(defaults, f"{kind}_lr_ratio", 1.0):
                why = "its head is tied to the embedding" if kind == "head" else f"it has no {kind}s"
                raise UserError(f"optimizer.{kind}_lr_ratio={ratio:g} has no effect on this model: {why}")
            decay = 0.0 if kind == "vector" else self.weight_decay
            assert self.lr is not None
            if params:
                groups.append(
                    {"params": params, "kind": kind, "weight_decay": decay, "lr_ratio": ratio, "lr": self.lr * ratio}
                )
        return groups


def evaluate_closure(closure: Callable[[], Any] | None) -> Any:
    """Return the loss of the closure, which torch allows an optimizer's step to receive; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def parameter_kind(name: str, p: Tensor) -> str:
    """Return the group of a parameter: matrix, embedding, head or vector."""
    if p.dim() < 2:
        return "vector"
    if name.startswith(("wte", "wpe")):
        return "embedding"
    return "head" if name.startswith("head") else "matrix"


@dataclass
class AdamLikeConfig(OptimizerConfig):
    """Settings of optimizers that keep running averages of each gradient and of its square."""

    beta1: float = 0.9  # decay of the average of gradients
    beta2: float = 0.95  # decay of the average of squared gradients
    eps: float = 1e-8  # added to the denominator of the update

    def check(self, check: Check) -> None:
        check.above("eps", 0)
        for key in ("beta1", "beta2"):
            check.within(key, 0, 1)

    def default_lr(self, n_embd: int) -> float:
        """Return a learning rate in inverse proportion to the width (Yang et al. 2022).

        It is 1e-3 at width 384 (nanoGPT's baby model) and 5e-4 at width 768 (GPT-2), close to what these use.
        """
        return 0.384 / n_embd

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 8 * numel

    @property
    def moments(self) -> dict[str, Any]:
        return {"betas": (self.beta1, self.beta2), "eps": self.eps}
