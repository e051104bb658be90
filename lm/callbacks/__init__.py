"""What happens around training: Lightning's early stopping, and the few callbacks that Lightning lacks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from lm.callbacks.checkpoints import CheckpointConfig, Checkpoints
from lm.callbacks.metrics import StepMetrics
from lm.callbacks.progress import Progress
from lm.callbacks.samples import SampleConfig, Samples
from lm.check import Check
from lm.trainer import TrainerConfig

__all__ = ["CallbacksConfig", "Checkpoints", "EarlyStoppingConfig", "Samples", "StepMetrics"]


@dataclass
class EarlyStoppingConfig:
    """Stop when val/loss has not improved: a small corpus is soon learnt by heart."""

    enabled: bool = True
    patience: int = 2000  # optimizer steps without improvement
    min_delta: float = 0.0  # what counts as improvement, in nats

    def __post_init__(self) -> None:
        check = Check("callbacks.early_stopping", self)
        check.at_least("patience", 1)
        check.at_least("min_delta", 0)
        check.done()


@dataclass
class CallbacksConfig:
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)

    def build(self, directory: Path, trainer: TrainerConfig, step: int, peak: float | None) -> list[L.Callback]:
        """In the order in which they act, for a run that goes on after `step`; `peak` is one device's FLOP/s."""
        callbacks: list[L.Callback] = [StepMetrics(trainer.log_every, peak), Progress()]  # first: they hold the clock
        if stopping := self.early_stopping.enabled and self.early_stopping:
            patience = math.ceil(stopping.patience / trainer.val_every)  # in validations
            callbacks.append(EarlyStopping("val/loss", stopping.min_delta, patience))
        if self.sample.enabled:
            callbacks.append(Samples(self.sample, directory, step))
        return [*callbacks, Checkpoints(self.checkpoint, directory, trainer.val_every, trainer.save_every)]
