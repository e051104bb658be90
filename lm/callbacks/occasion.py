"""What samples and tasks have in common: they are done now and then."""

from __future__ import annotations

from typing import Any

import lightning as L

from lm.callbacks.metrics import StepMetrics


class Occasion(L.Callback):
    """Calls `act` after every so many optimizer steps and after the last, in the main process, while the clock of
    training stands; never with weights that are not finite."""

    def __init__(self, every: int) -> None:
        self.every = every

    def act(self, trainer: L.Trainer, pl_module: Any) -> None:
        raise NotImplementedError

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == pl_module.horizon
        if trainer.is_global_zero and pl_module.stepped and due:
            pl_module.require_finite()
            StepMetrics.pause(trainer)
            self.act(trainer, pl_module)
