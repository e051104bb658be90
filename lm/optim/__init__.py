"""Optimizers, their parameter groups, and learning-rate schedules."""

from lm.optim.base import OptimizerConfig, parameter_kind
from lm.optim.classic import AdamConfig, AdamWConfig, Lion, LionConfig, RMSpropConfig, SGDConfig
from lm.optim.eightbit import AdamW8bitConfig, PagedAdamW8bitConfig
from lm.optim.muon import Muon, MuonConfig, orthogonalize

OPTIMIZERS: list[type] = [
    AdamWConfig, AdamConfig, SGDConfig, RMSpropConfig, LionConfig, AdamW8bitConfig, PagedAdamW8bitConfig, MuonConfig,
]  # fmt: skip

__all__ = [
    "OPTIMIZERS",
    "AdamConfig",
    "AdamW8bitConfig",
    "AdamWConfig",
    "Lion",
    "LionConfig",
    "Muon",
    "MuonConfig",
    "OptimizerConfig",
    "PagedAdamW8bitConfig",
    "RMSpropConfig",
    "SGDConfig",
    "orthogonalize",
    "parameter_kind",
]  # fmt: skip
