"""Number formats. Weights and optimizer state stay fp32; bf16 and fp16 are what matrix products run in (autocast)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm.check import Check
from lm.hardware import fast_bf16

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class PrecisionConfig:
    dtype: str = "auto"  # auto | fp32 | bf16 | fp16

    def __post_init__(self) -> None:
        check = Check("precision", self)
        check.one_of("dtype", ("auto", *DTYPES))
        check.done()

    def resolve(self, device: str) -> str:
        """'fp32', 'bf16' or 'fp16' for a device type. `auto` takes bf16 where hardware has it, else fp16 on a GPU.

        Raises ValueError for fp16 off a GPU: a CPU has no fast fp16, and Lightning would silently run bf16.
        """
        if self.dtype == "auto":
            if fast_bf16(device):
                return "bf16"
            return "fp16" if device == "cuda" else "fp32"
        if self.dtype == "fp16" and device != "cuda":
            raise ValueError(
                f"precision=fp16 needs a CUDA GPU, and this run is on {device}: use precision=bf16 or fp32"
            )
        return self.dtype
