"""Timing on a shared machine: tasks that are compared take turns, so a busy moment affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from lm.base.hardware import synchronize


def time_alternately(
    tasks: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", warm_up: int = 2
) -> dict[str, list[float]]:
    """Run all tasks in turns; return the milliseconds of each in each of `repeats` turns.

    The first `warm_up` turns are not counted.
    """
    ms: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warm_up + repeats):
        for name, task in tasks.items():
            synchronize(torch.device(device))
            start = time.perf_counter()
            task()
            synchronize(torch.device(device))
            if turn >= warm_up:
                ms[name].append(1e3 * (time.perf_counter() - start))
    return ms


def matmul(dtype: torch.dtype, device: str) -> tuple[Callable[[], object], float]:
    """Return a task that multiplies two large square matrices, and its number of operations.

    It measures the highest speed that the device reaches. The matrices are small on a CPU that emulates the dtype,
    where a large product would take minutes.
    """
    small, large = (torch.randn(2, size, size, device=device).to(dtype) for size in (256, 2048))
    ms = time_alternately({"small": lambda: small[0] @ small[1]}, repeats=3, device=device)["small"]
    a = large if min(ms) < 20 else small  # 512 times as many operations
    return lambda: a[0] @ a[1], 2 * a.size(1) ** 3
