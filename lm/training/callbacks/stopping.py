"""Early stopping in optimizer steps.

Lightning's EarlyStopping counts validations, forgets on a resume that it had decided to stop, and keeps the old
patience when the settings have changed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning as L

from lm.training.callbacks.config import EarlyStoppingConfig

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class EarlyStopping(L.Callback):
    """Stop training at the first validation at least `patience` steps after the latest improvement of val/loss."""

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self.config = config
        self.best: dict[str, float] = {}  # val/loss of the latest improvement, and its step

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        self._decide(trainer)  # the run may have been killed between its last validation and its end

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        loss = pl_module.latest["val/loss"]
        if not self.best or loss < self.best["val/loss"] - self.config.min_delta:
            self.best = {"val/loss": loss, "step": trainer.global_step}
        self._decide(trainer)

    def _decide(self, trainer: L.Trainer) -> None:
        if self.best and trainer.global_step - self.best["step"] >= self.config.patience:
            log.info("early stopping: val/loss has not improved since step %d", self.best["step"])
            trainer.should_stop = True
