"""Optimizers of bitsandbytes, which keep their state in 8 bits."""

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
    """AdamW with its two averages in 8 bits (Dettmers et al. 2022), which takes a quarter of the memory.

    Tensors of fewer than 4096 numbers keep 32 bits. It also runs on a CPU, where it is slower than fused AdamW.
    """

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        return bitsandbytes_class("AdamW8bit", "adamw_8bit")(self.parameter_groups(model), **self.moments)

    def state_bytes(self, numel: int, matrix: bool) -> int:
        if numel < 4096:
            return super().state_bytes(numel, matrix)
        return 2 * (numel + 4 * -(-numel // 256))  # 4 bytes for the scale of each block of 256

    def working_bytes(self, numel: int, device: str) -> int:
        return 20 * numel if device == "cpu" else 0  # on a CPU it runs in several steps with fp32 in between


@dataclass
class PagedAdamW8bitConfig(AdamW8bitConfig):
    """AdamW8bit with paged state: when the GPU is full, the state moves to the machine's memory.

    Without a GPU there is nothing to page, and the plain optimizer is used.
    """

    def build(self, model: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
        if next(model.parameters()).device.type == "cpu" and not torch.cuda.is_available():
            log.info("optimizer=paged_adamw_8bit has no effect without a GPU: using optimizer=adamw_8bit")
            return super().build(model, fused)
        return bitsandbytes_class("PagedAdamW8bit", "paged_adamw_8bit")(self.parameter_groups(model), **self.moments)


def bitsandbytes_class(name: str, option: str) -> type:
    """Return a class of bitsandbytes. Raises UserError with the install command if it is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about kernels that are not used here
    try:
        import bitsandbytes.optim as library
    except ImportError as error:
        raise UserError(f"optimizer={option} needs bitsandbytes: {commands.install('bitsandbytes')}") from error
    return getattr(library, name)
