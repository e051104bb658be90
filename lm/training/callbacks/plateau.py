"""schedule.plateau: a lower rate when val/loss has not improved. (torch's ReduceLROnPlateau, which Lightning would
step, counts validations and changes the optimizer's rates, which we set anew at every step.)"""

from __future__ import annotations

import logging
from typing import Any

import lightning as L

log = logging.getLogger("lm")


class Plateau(L.Callback):
    """Sets `rate_factor` of the module, which multiplies the schedule's rate; its config is the module's schedule's.

    Only validations that fall on `val_every` count, not the extra one at the end of a run: so a run that is made longer
    equals one that was as long from the start, where the schedule allows it.
    """

    def __init__(self, val_every: int) -> None:
        self.val_every = val_every
        self.state: dict[str, float] = {}  # best val/loss; `since`, the step that patience counts from; factor

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = dict(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.rate_factor = self.state.get("factor", 1.0)  # a continued run's, before its first step

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        config, step, loss = pl_module.schedule.plateau, trainer.global_step, pl_module.latest["val/loss"]
        if not config.enabled or step % self.val_every:
            return
        if not self.state:
            self.state = {"val/loss": loss, "since": step, "factor": 1.0}
        elif loss < self.state["val/loss"] - config.min_delta:
            self.state |= {"val/loss": loss, "since": max(step, self.state["since"])}  # a cooldown goes on
        elif step - self.state["since"] >= config.patience and self.state["factor"] > config.min_factor:
            factor = max(config.min_factor, self.state["factor"] * config.factor)
            self.state |= {"since": step + config.cooldown, "factor": factor}
            pl_module.rate_factor = factor
            log.info("val/loss is on a plateau: from here on %g times the schedule's rate", factor)
