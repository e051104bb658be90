"""A trial that does worse than those before it ends before its time. (Optuna's own callback lies in a package apart,
counts epochs, and knows no trial of another process.)"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L

from lm.run.directory import Pruned
from lm.sweep.config import SweepConfig
from lm.sweep.search import open_study, pruner

log = logging.getLogger("lm")


class Pruning(L.Callback):
    """Reports every validation to the study beside the run, at its optimizer step; raises Pruned when told to end."""

    def __init__(self, config: SweepConfig, directory: Path, val_every: int) -> None:
        self.config, self.directory, self.val_every = config, directory.parent, val_every

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        from optuna.trial import Trial

        study = open_study(self.directory, pruner(self.config, self.val_every, pl_module.horizon))
        (frozen,) = (trial for trial in study.get_trials() if trial.number == self.config.trial)
        self.trial = Trial(study, frozen._trial_id)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        step, value = trainer.global_step, pl_module.latest[self.config.metric]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a continued run reports some steps again, the same values
            self.trial.report(value, step)
        if step < pl_module.horizon and self.trial.should_prune():
            log.info("pruned at step %d: %s %.4f is worse than others' at that step", step, self.config.metric, value)
            raise Pruned(f"pruned at step {step}")
