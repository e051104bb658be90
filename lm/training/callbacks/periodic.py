"""The base class of callbacks that act every N optimizer steps, such as samples and task scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L

from lm.training.callbacks.metrics import StepMetrics

if TYPE_CHECKING:
    from lm.training.module import LanguageModule


class PeriodicCallback(L.Callback):
    """Run `act` every `every` optimizer steps and after the last one, on rank 0 only.

    This time does not count as training time. Raises Diverged if the weights are not finite.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.acted = -1  # the latest step after which `act` was called

    def act(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        """Do the work of the callback. Subclasses implement this."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"acted": self.acted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.acted = state_dict.get("acted", -1)  # not in older checkpoints

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == pl_module.horizon
        if pl_module.stepped and due:
            self._act(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        """Act after the last step, also of a run that stops early."""
        self._act(trainer, pl_module)

    def _act(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        if trainer.is_global_zero and self.acted != trainer.global_step:
            pl_module.require_finite()
            StepMetrics.pause(trainer)
            self.acted = trainer.global_step
            self.act(trainer, pl_module)
