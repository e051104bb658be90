"""What every optimizer has: a rate, decay, clipping, and which parameters learn at which rate."""

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
    """A kind of optimizer adds its fields, `default_lr` and `build`."""

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
        """Range checks of the fields an optimizer adds."""

    def default_lr(self, n_embd: int) -> float:
        """The peak rate when none is given."""
        raise NotImplementedError

    def for_width(self, n_embd: int) -> Self:
        """This config with a peak rate."""
        return self if self.lr is not None else replace(self, lr=self.default_lr(n_embd))

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        """Needs a peak rate, see `for_width`. `fused` is one kernel a step; no gradient scaler (fp16) works with it.

        Raises UserError when a group has a rate of its own and the model has no such parameters.
        """
        raise NotImplementedError

    def state_bytes(self, numel: int, matrix: bool) -> int:
        """What it keeps of a tensor of so many numbers. `matrix`: of a block's matrices."""
        raise NotImplementedError

    def working_bytes(self, numel: int, device: str) -> int:
        """What its update of a tensor needs in passing: nothing, in one kernel."""
        return 0

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Every trainable parameter once: the blocks' matrices, embeddings, the head, and vectors, which do not decay.

        `lr_ratio` is what the trainer multiplies the scheduled rate by. Raises UserError for a ratio without
        parameters.
        """
        usual = type(self)()
        kinds: dict[str, list[tuple[str, Tensor]]] = {"matrix": [], "embedding": [], "head": [], "vector": []}
        for name, p in model.named_parameters():  # a tied head is an embedding
            if p.requires_grad:
                kinds[kind_of(name, p)].append((name, p))  # torch keeps the names in what it saves
        groups = []
        for kind, params in kinds.items():
            ratio = getattr(self, f"{kind}_lr_ratio", 1.0)
            if not params and ratio != getattr(usual, f"{kind}_lr_ratio", 1.0):
                why = "its head is tied to the embedding" if kind == "head" else f"it has no {kind}s"
                raise UserError(f"optimizer.{kind}_lr_ratio={ratio:g} is for nothing in this model: {why}")
            decay = 0.0 if kind == "vector" else self.weight_decay
            assert self.lr is not None
            if params:
                groups.append(
                    {"params": params, "kind": kind, "weight_decay": decay, "lr_ratio": ratio, "lr": self.lr * ratio}
                )
        return groups


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """What torch wants of an optimizer's step first of all: the loss, made anew where it is told how."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def kind_of(name: str, p: Tensor) -> str:
    """matrix, embedding, head or vector."""
    if p.dim() < 2:
        return "vector"
    if name.startswith(("wte", "wpe")):
        return "embedding"
    return "head" if name.startswith("head") else "matrix"


@dataclass
class AdamLikeConfig(OptimizerConfig):
    """Two averages of each gradient, of itself and of its square."""

    beta1: float = 0.9  # decay of the average of gradients
    beta2: float = 0.95  # decay of the average of squared gradients
    eps: float = 1e-8  # added to the denominator of the update

    def check(self, check: Check) -> None:
        check.above("eps", 0)
        for key in ("beta1", "beta2"):
            check.within(key, 0, 1)

    def default_lr(self, n_embd: int) -> float:
        """1e-3 at nanoGPT's baby width of 384 and 5e-4 at GPT-2's 768, close to what is used there; matrices of Adam
        want rates in inverse proportion to width (Yang et al. 2022)."""
        return 0.384 / n_embd

    def state_bytes(self, numel: int, matrix: bool) -> int:
        return 8 * numel

    @property
    def moments(self) -> dict[str, Any]:
        return {"betas": (self.beta1, self.beta2), "eps": self.eps}
