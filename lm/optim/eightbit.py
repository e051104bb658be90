"""bitsandbytes: optimizers whose state is 8 bits wide."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from lm.base import commands
from lm.base.errors import UserError
from lm.optim.base import AdamLikeConfig

log = logging.getLogger("lm")


@dataclass
class AdamW8bitConfig(AdamLikeConfig):
    """AdamW with its two averages in 8 bits (Dettmers et al. 2022): a quarter of the optimizer's memory.

    Tensors below 4096 numbers keep 32 bits. It runs on a CPU too, where it is slower than fused AdamW.
    """

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return bitsandbytes("AdamW8bit", "adamw_8bit")(self.groups(model), **self.moments)

    def state_bytes(self, numel: int, matrix: bool) -> int:
        if numel < 4096:
            return super().state_bytes(numel, matrix)
        return 2 * (numel + 4 * -(-numel // 256))  # and a scale for each block of 256

    def working_bytes(self, numel: int, device: str) -> int:
        return 20 * numel if device == "cpu" else 0  # a CPU has it written in steps, with fp32 in between


@dataclass
class PagedAdamW8bitConfig(AdamW8bitConfig):
    """The same in memory that the GPU shares with the machine, so that a peak moves it out instead of failing. A CPU
    has nothing to page, and gets the plain one."""

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        if next(model.parameters()).device.type == "cpu" and not torch.cuda.is_available():
            log.info("optimizer=paged_adamw_8bit pages nothing without a GPU: it is adamw_8bit here")
            return super().build(model, fused)
        return bitsandbytes("PagedAdamW8bit", "paged_adamw_8bit")(self.groups(model), **self.moments)


def bitsandbytes(name: str, option: str) -> type:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports kernels that nothing here calls
    try:
        import bitsandbytes.optim as library
    except ImportError as error:
        raise UserError(f"optimizer={option} needs bitsandbytes: {commands.install('bitsandbytes')}") from error
    return getattr(library, name)
