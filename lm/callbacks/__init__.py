"""What happens around training: Lightning's early stopping, and the few callbacks that Lightning lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L

from lm.callbacks.checkpoints import CheckpointConfig, Checkpoints
from lm.callbacks.metrics import StepMetrics
from lm.callbacks.progress import Progress
from lm.callbacks.samples import SampleConfig, Samples
from lm.callbacks.stopping import EarlyStopping, EarlyStoppingConfig
from lm.trainer import TrainerConfig

__all__ = ["CallbacksConfig", "Checkpoints", "EarlyStopping", "EarlyStoppingConfig", "Samples", "StepMetrics"]


@dataclass
class CallbacksConfig:
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)

    def build(self, directory: Path, trainer: TrainerConfig, peak: float | None) -> list[L.Callback]:
        """In the order in which they act; `peak` is the FLOP/s of one device."""
        callbacks: list[L.Callback] = [StepMetrics(trainer.log_every, peak), Progress()]  # first: they hold the clock
        if self.early_stopping.enabled:
            callbacks.append(EarlyStopping(self.early_stopping))
        if self.sample.enabled:
            callbacks.append(Samples(self.sample, directory))
        return [*callbacks, Checkpoints(self.checkpoint, directory, trainer.val_every, trainer.save_every)]
