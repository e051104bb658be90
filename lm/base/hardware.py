"""What this machine is and can do: device, bf16, peak speed, memory."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import platform
import re
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lm.base import commands
from lm.base.checks import did_you_mean
from lm.base.errors import UserError

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")

# Dense bf16 peaks in TFLOP/s without sparsity, from the vendors' data sheets. The longest name that occurs in the
# device's own name counts.
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "A10": 125, "A40": 150,
    "L40S": 362, "L40": 181, "L4": 121, "RTX 6000 Ada": 364, "RTX A6000": 155, "V100": 125, "T4": 65,
    "RTX 5090": 209.5, "RTX 5080": 112.6, "RTX 5070 Ti": 87.9, "RTX 5060 Ti": 47.4,
    "RTX 4090": 165.2, "RTX 4080": 97.5, "RTX 4070": 58.3, "RTX 4060 Ti": 44.1, "RTX 4060": 30.2,
    "RTX 3090": 71, "RTX 3080": 59.5, "RTX 3070": 40.6, "RTX 3060": 25.6,
}  # fmt: skip


def is_main_process() -> bool:
    """False in the processes that Lightning starts for further devices: they train, and write and say nothing."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def device_type(accelerator: str, key: str) -> str:
    """'cpu', 'cuda' or 'mps' for one of ACCELERATORS; `key` is what the user set it by.

    Raises UserError for anything else, and for a device that this machine lacks.
    """
    if accelerator not in ACCELERATORS:
        allowed = f"must be one of {', '.join(ACCELERATORS)}{did_you_mean(accelerator, ACCELERATORS)}"
        raise UserError(f"{key}={accelerator} {allowed}")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if has[device])
    device = {"gpu": "cuda"}.get(accelerator, accelerator)
    if not has[device]:
        raise UserError(
            f"{key}={accelerator}: torch {torch.__version__} finds no such device here; "
            f"it finds {', '.join(d for d, found in has.items() if found)}"
        )
    return device


def device_count(device: str) -> float:
    """Return how many devices of a type a run can use: processes share a CPU, and Metal has one GPU."""
    return {"cpu": math.inf, "mps": 1}.get(device, torch.cuda.device_count())


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "cpu" and (cpuinfo := Path("/proc/cpuinfo")).exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {torch.get_num_threads()} threads"
    return platform.processor() or device


def fast_bf16(device: str) -> bool:
    """Whether bf16 products are done in hardware; elsewhere bf16 would be slower than fp32."""
    if device == "cuda":  # one that is not here, which scripts/memory.py may be asked about, is taken for a newer one
        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch >= 2.12
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def peak_flops(device: str) -> float | None:
    """Dense bf16 FLOP/s of one device, or None where no data sheet tells."""
    if device != "cuda":
        return None
    return card_peak(torch.cuda.get_device_name())


def card_peak(name: str) -> float | None:
    """The peak of a card by its full name, e.g. 'NVIDIA H100 PCIe'."""
    known = [key for key in PEAK_TFLOPS if re.search(rf"\b{key}\b(?! (Ti|SUPER|D|Laptop))", name)]
    return PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else None


def require_compiler(device: str) -> None:
    """Raises UserError when torch.compile would find nothing here to compile with."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            f"trainer.compile=true needs triton, which torch compiles for a GPU with: {commands.install('triton')}"
        )
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if device == "cpu" and not any(map(shutil.which, filter(None, compilers))):
        raise UserError("trainer.compile=true needs a C++ compiler on a CPU, such as g++; CXX may name it")


def keep_freed_memory() -> None:
    """Let this process keep what tensors on the CPU give back, for the next ones.

    glibc returns large blocks to the system at once, and every step would have them given, and zeroed, page by page.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3  # of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)


def seed_generators(seed: int, device: str) -> None:
    """torch.manual_seed for the generators of the CPU and of this type of device alone.

    That one notes the seed, with a stack trace, for every kind of device that may yet come: 1.7 ms each time.
    """
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)
    elif device == "mps":
        torch.mps.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_bytes(device: str) -> int:
    """What there is in all: of the GPU, or of the machine, where a container may be given less of it."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not Linux, or no limit: "max"
            limits.append(int(Path(path).read_text(encoding="utf-8")))
    return min(limits)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory used so far, in 1e9 bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return rss * (1 if sys.platform == "darwin" else 1024) / 1e9
