"""callbacks.task: a made-up language's task, asked while the model learns it."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from lm.data.corpus import CorpusConfig
from lm.evaluate.tasks import score_task
from lm.training.callbacks.config import TaskConfig
from lm.training.callbacks.periodic import PeriodicCallback

log = logging.getLogger("lm")


class TaskScores(PeriodicCallback):
    """Logs task/rate, over all kinds, and task/least, of the kind that goes worst; TensorBoard has each kind too.

    The same cases each time, by the strict procedure.
    """

    def __init__(self, config: TaskConfig, language: CorpusConfig | None) -> None:
        super().__init__(config.every)
        self.config, self.language = config, language

    def act(self, trainer: L.Trainer, pl_module: Any) -> None:
        name = str(self.config.name)
        with pl_module.as_validated() as model:
            found = score_task(model, pl_module.tokenizer, name, self.language, count=self.config.cases)
        right, asked = sum(rate.right for rate in found), sum(rate.asked for rate in found)
        least = min(found, key=lambda rate: rate.rate)
        pl_module.log_metrics({"task/rate": right / asked, "task/least": least.rate})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                kinds = {f"task/{name}/{rate.kind}": rate.rate for rate in found}
                logger.log_metrics(kinds, step=trainer.global_step)
        log.info(
            "%s at step %d: %.1f %% right, least %.1f %% (%s)",
            name, trainer.global_step, 100 * right / asked, 100 * least.rate, least.kind,
        )  # fmt: skip
