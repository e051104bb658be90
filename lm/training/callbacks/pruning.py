"""End unpromising trials of a search early.

Optuna's own Lightning callback is in another package, counts epochs, and does not know trials of other processes.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from lm.run.directory import Pruned
from lm.sweep.config import SweepConfig
from lm.sweep.search import build_pruner, open_study

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class Pruning(L.Callback):
    """Report every validation to the study at its optimizer step. Raises Pruned when the study ends the trial."""

    def __init__(self, config: SweepConfig, directory: Path, val_every: int) -> None:
        self.config, self.directory, self.val_every = config, directory.parent, val_every

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        from optuna.trial import Trial

        study = open_study(self.directory, build_pruner(self.config, self.val_every, pl_module.horizon))
        (frozen,) = (trial for trial in study.get_trials() if trial.number == self.config.trial)
        self.trial = Trial(study, frozen._trial_id)

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        step, value = trainer.global_step, pl_module.latest[self.config.metric]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed run reports some steps again, with the same values
            self.trial.report(value, step)
        if step < pl_module.horizon and self.trial.should_prune():
            metric = self.config.metric
            log.info("pruned at step %d: %s %.4f is worse than in other trials at this step", step, metric, value)
            raise Pruned(f"pruned at step {step}")
