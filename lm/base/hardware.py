"""Query the hardware of this machine: devices, bf16 support, peak speed, memory."""

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

# Peak dense bf16 TFLOP/s (without sparsity), from the vendors' data sheets. The longest key that occurs in the name of
# the device applies.
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "A10": 125, "A40": 150,
    "L40S": 362, "L40": 181, "L4": 121, "RTX 6000 Ada": 364, "RTX A6000": 155, "V100": 125, "T4": 65,
    "RTX 5090": 209.5, "RTX 5080": 112.6, "RTX 5070 Ti": 87.9, "RTX 5060 Ti": 47.4,
    "RTX 4090": 165.2, "RTX 4080": 97.5, "RTX 4070": 58.3, "RTX 4060 Ti": 44.1, "RTX 4060": 30.2,
    "RTX 3090": 71, "RTX 3080": 59.5, "RTX 3070": 40.6, "RTX 3060": 25.6,
}  # fmt: skip


def is_main_process() -> bool:
    """Tell whether this is rank 0. The processes that Lightning starts for further devices write and print nothing."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def resolve_device_type(accelerator: str, key: str) -> str:
    """Return 'cpu', 'cuda' or 'mps' for one of ACCELERATORS. `key` is the config key or flag that was set to it.

    Raises UserError for any other value, and for a device that this machine does not have.
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
            f"{key}={accelerator}: PyTorch {torch.__version__} finds no such device on this machine; "
            f"available: {', '.join(d for d, available in has.items() if available)}"
        )
    return device


def device_count(device: str) -> float:
    """Return the number of devices of a type that a run can use.

    On a CPU this is infinite, because any number of processes can share it. Metal has one GPU.
    """
    return {"cpu": math.inf, "mps": 1}.get(device, torch.cuda.device_count())


def device_name(device: str) -> str:
    """Return the name of the GPU or CPU, e.g. for run.json."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "cpu" and (cpuinfo := Path("/proc/cpuinfo")).exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {torch.get_num_threads()} threads"
    return platform.processor() or device


def has_fast_bf16(device: str) -> bool:
    """Tell whether the hardware multiplies bf16 matrices; without that, bf16 is slower than fp32."""
    if device == "cuda":  # a GPU that is not in this machine (scripts/memory.py) is assumed to be a recent one
        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch >= 2.12
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def peak_flops(device: str) -> float | None:
    """Return the peak dense bf16 FLOP/s of one device, or None if it is not in PEAK_TFLOPS."""
    if device != "cuda":
        return None
    return gpu_peak_flops(torch.cuda.get_device_name())


def gpu_peak_flops(name: str) -> float | None:
    """Return the peak dense bf16 FLOP/s of a GPU by its full name, e.g. 'NVIDIA H100 PCIe', or None."""
    known = [key for key in PEAK_TFLOPS if re.search(rf"\b{key}\b(?! (Ti|SUPER|D|Laptop))", name)]
    return PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else None


def require_compiler(device: str) -> None:
    """Raises UserError if the compiler that torch.compile needs on this device is missing."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            f"trainer.compile=true needs triton to compile for a GPU; install it with {commands.install('triton')}"
        )
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if device == "cpu" and not any(map(shutil.which, filter(None, compilers))):
        raise UserError(
            "trainer.compile=true needs a C++ compiler on a CPU; install g++ or set the environment variable CXX"
        )


def keep_freed_memory() -> None:
    """Make glibc keep the freed memory of CPU tensors in this process for later tensors.

    By default glibc returns large blocks to the system immediately, so in every step the system would allocate and zero
    them again page by page.
    """
    with suppress(OSError, AttributeError):  # a C library other than glibc
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)


def seed_generators(seed: int, device: str) -> None:
    """Seed the generators of the CPU and of this type of device only.

    `torch.manual_seed` also records the seed, with a stack trace, for devices that are not initialized yet, which takes
    1.7 ms per call.
    """
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)
    elif device == "mps":
        torch.mps.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work, so that timings are correct."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_bytes(device: str) -> int:
    """Return the total memory of the GPU, or of the machine or its container, whichever is less."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or no limit ("max")
            limits.append(int(Path(path).read_text(encoding="utf-8")))
    return min(limits)


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory used so far, in 1e9 bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return rss * (1 if sys.platform == "darwin" else 1024) / 1e9
