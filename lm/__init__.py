"""Train small GPT language models: Hydra composes, Lightning runs, every run continues bit for bit."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `lm.load` when it is used: it needs torch, which takes seconds to import."""
    if name == "load":
        return import_module("lm.experiment.loaded").load
    raise AttributeError(f"module 'lm' has no attribute {name!r}")
