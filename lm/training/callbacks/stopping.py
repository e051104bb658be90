"""Early stopping in optimizer steps. (Lightning's counts validations, forgets on a resume that it had decided to stop,
and keeps the old patience when a new one was asked for.)"""

from __future__ import annotations

import logging
from typing import Any

import lightning as L

from lm.training.callbacks.config import EarlyStoppingConfig

log = logging.getLogger("lm")


class EarlyStopping(L.Callback):
    """Ends training at the first validation that comes `patience` steps after the latest improvement."""

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self.config = config
        self.best: dict[str, float] = {}  # val/loss of the latest improvement, and its step

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._decide(trainer)  # killed between the last validation and the end of the run

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        loss = pl_module.latest["val/loss"]
        if not self.best or loss < self.best["val/loss"] - self.config.min_delta:
            self.best = {"val/loss": loss, "step": trainer.global_step}
        self._decide(trainer)

    def _decide(self, trainer: L.Trainer) -> None:
        if self.best and trainer.global_step - self.best["step"] >= self.config.patience:
            log.info("stopping early: no better val/loss since step %d", self.best["step"])
            trainer.should_stop = True
