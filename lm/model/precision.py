"""Number formats. Weights and optimizer state stay fp32; bf16 and fp16 are what matrix products run in (autocast).
Under bf16_true all is bf16: half the memory, and updates below a 256th of a weight are lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.base.hardware import fast_bf16

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
        """'fp32', 'bf16', 'fp16' or 'bf16_true'. `auto` takes bf16 where the device has it, else fp16 on a GPU.

        Raises UserError for fp16 off a GPU: a CPU has no fast fp16, and Lightning would silently run bf16.
        """
        if self.dtype == "auto":
            if fast_bf16(device):
                return "bf16"
            return "fp16" if device == "cuda" else "fp32"
        if self.dtype == "fp16" and device != "cuda":
            raise UserError(f"precision=fp16 needs a CUDA GPU, and this run is on {device}: use precision=bf16 or fp32")
        return self.dtype

    def apply(self) -> None:
        """Set what is global to the process; a sweep's next job sets it anew."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")


def autocast(device: str, precision: str) -> torch.autocast:
    """What Lightning trains in, for loops without it. A bf16_true model is to be cast by whoever makes it."""
    return torch.autocast(device, DTYPES[precision], enabled=precision in ("bf16", "fp16"))
