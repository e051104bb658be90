"""schedule.plateau: lower the learning rate when val/loss has not improved.

torch's ReduceLROnPlateau counts validations instead of steps, and changes the learning rates of the optimizer, which
LanguageModule sets at every step.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning as L

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class Plateau(L.Callback):
    """Set `lr_factor` of the module, which multiplies the schedule's learning rate.

    The settings are in the module's schedule. Only validations at multiples of `val_every` count, not the extra one at
    the end of a run. So a run that is extended equals one that was as long from the start, if the schedule allows it.
    """

    def __init__(self, val_every: int) -> None:
        self.val_every = val_every
        self.state: dict[str, float] = {}  # best val/loss; `since`, the step from which patience counts; factor

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = dict(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        pl_module.lr_factor = self.state.get("factor", 1.0)  # of a resumed run

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        config, step, loss = pl_module.schedule.plateau, trainer.global_step, pl_module.latest["val/loss"]
        if not config.enabled or step % self.val_every:
            return
        if not self.state:
            self.state = {"val/loss": loss, "since": step, "factor": 1.0}
        elif loss < self.state["val/loss"] - config.min_delta:
            self.state |= {"val/loss": loss, "since": max(step, self.state["since"])}  # keeps a cooldown
        elif step - self.state["since"] >= config.patience and self.state["factor"] > config.min_factor:
            factor = max(config.min_factor, self.state["factor"] * config.factor)
            self.state |= {"since": step + config.cooldown, "factor": factor}
            pl_module.lr_factor = factor
            log.info("val/loss is on a plateau: the learning rate is now %g times the schedule's", factor)
