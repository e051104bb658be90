"""Build models without numbers, to count parameters and compare shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class SkipInitialization(TorchFunctionMode):
    """Skip torch's functions that fill a tensor at random.

    On tensors without numbers they change nothing, but they import torch's compiler, which takes seconds.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_numbers() -> Iterator[None]:
    """Build the models within the `with` block on torch's device `meta`: their tensors have shapes, but no numbers."""
    with torch.device("meta"), SkipInitialization():
        yield
