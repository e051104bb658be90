"""What samples and tasks have in common: they are made every so many steps."""

from __future__ import annotations

from typing import Any

import lightning as L

from lm.training.callbacks.metrics import StepMetrics


class PeriodicCallback(L.Callback):
    """Call `act` every `every` optimizer steps and after the last one, in the main process only.

    The clock of training stands meanwhile. Weights that are not finite are never looked at: that raises Diverged.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.acted = -1  # the latest step after which `act` was called

    def act(self, trainer: L.Trainer, pl_module: Any) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"acted": self.acted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.acted = state_dict.get("acted", -1)  # older checkpoints do not say

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == pl_module.horizon
        if pl_module.stepped and due:
            self._act(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Act after the last step of a run that stops early, too."""
        self._act(trainer, pl_module)

    def _act(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero and self.acted != trainer.global_step:
            pl_module.require_finite()
            StepMetrics.pause(trainer)
            self.acted = trainer.global_step
            self.act(trainer, pl_module)
