"""Number formats of training.

With bf16 and fp16, matrix products run in that format (autocast), while weights and optimizer state stay in fp32. With
bf16_true everything is bf16, which takes half the memory, but updates smaller than 1/256 of a weight are lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.hardware import has_fast_bf16

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "bf16_true": torch.bfloat16}


@dataclass
class PrecisionConfig:
    dtype: str = "auto"  # auto | fp32 | bf16 | fp16 | bf16_true; auto uses bf16 where the hardware computes it fast
    tf32: bool = False  # compute fp32 products of an NVIDIA GPU in TF32: 10 bits of mantissa, several times as fast

    def __post_init__(self) -> None:
        check = Check("precision", self)
        check.one_of("dtype", ("auto", *DTYPES))
        check.done()

    def resolve(self, device: str) -> str:
        """Return 'fp32', 'bf16', 'fp16' or 'bf16_true'.

        `auto` is bf16 if the device computes it fast, otherwise fp16 on a GPU and fp32 elsewhere. Raises UserError for
        fp16 on another device than a CUDA GPU, where Lightning would silently run bf16 instead.
        """
        if self.dtype == "auto":
            if has_fast_bf16(device):
                return "bf16"
            return "fp16" if device == "cuda" else "fp32"
        if self.dtype == "fp16" and device != "cuda":
            raise UserError(f"precision=fp16 needs a CUDA GPU, and this run is on {device}: use precision=bf16 or fp32")
        return self.dtype

    def apply(self) -> None:
        """Set the process-wide precision of fp32 matrix products. The next job of a sweep sets it again."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the autocast context that Lightning uses, for loops without Lightning.

    It does nothing for bf16_true, where the caller converts the model itself.
    """
    return torch.autocast(device, DTYPES[precision], enabled=precision in ("bf16", "fp16"))
