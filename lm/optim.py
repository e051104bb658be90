"""Optimizers and what they decay."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from lm.check import Check


@dataclass
class OptimizerConfig:
    """What every optimizer has; a kind of optimizer adds its fields and `build`."""

    lr: float | None = None  # the peak; schedule= shapes it; null: 0.384 / n_embd
    weight_decay: float = 0.1  # of matrices; gains and biases are never decayed
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    grad_clip: float = 1.0  # the most that the global gradient norm may be; 0: no clipping

    def __post_init__(self) -> None:
        check = Check("optimizer", self)
        check.above("lr", 0)
        for key in ("weight_decay", "grad_clip"):
            check.at_least(key, 0)
        check.above("eps", 0)
        for key in ("beta1", "beta2"):
            check.within(key, 0, 1)
        check.done()

    def for_width(self, n_embd: int) -> Self:
        """This config with a peak rate: without one, 0.384 / n_embd.

        That is 1e-3 at nanoGPT's baby width of 384 and 5e-4 at GPT-2's 768, close to what is used there; matrices of
        Adam want rates in inverse proportion to width (Yang et al. 2022).
        """
        return self if self.lr is not None else replace(self, lr=0.384 / n_embd)

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        """Needs a peak rate, see `for_width`. `fused` is one kernel a step; no gradient scaler (fp16) works with it."""
        raise NotImplementedError

    def state_bytes(self, numel: int) -> int:
        """What it keeps of a tensor of so many numbers: two averages in fp32."""
        return 8 * numel

    def working_bytes(self, numel: int, device: str) -> int:
        """What its update of a tensor needs in passing: nothing, in one kernel."""
        return 0


@dataclass
class AdamWConfig(OptimizerConfig):
    """Loshchilov and Hutter 2019. Fused, it is the cheapest step on a CPU and on a GPU."""

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        assert self.lr is not None
        groups = param_groups(model, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=fused)


@dataclass
class AdamW8bitConfig(OptimizerConfig):
    """AdamW with its two averages in 8 bits (Dettmers et al. 2022): a quarter of the optimizer's memory.

    Tensors below 4096 numbers keep 32 bits. It runs on a CPU too, where it is slower than fused AdamW.
    """

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports kernels that nothing here calls
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ValueError("optimizer=adamw_8bit needs bitsandbytes: pip install bitsandbytes") from error
        groups = param_groups(model, self.weight_decay)
        return AdamW8bit(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps)

    def state_bytes(self, numel: int) -> int:
        if numel < 4096:
            return super().state_bytes(numel)
        return 2 * (numel + 4 * -(-numel // 256))  # and a scale for each block of 256

    def working_bytes(self, numel: int, device: str) -> int:
        return 20 * numel if device == "cpu" else 0  # a CPU has it written in steps, with fp32 in between


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and the rest, which does not; every trainable parameter once."""
    params = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
