"""callbacks.task: score the model on a task of a synthetic corpus during training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from lm.data.corpus import CorpusConfig
from lm.evaluate.tasks import score_task
from lm.training.callbacks.config import TaskConfig
from lm.training.callbacks.periodic import PeriodicCallback

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class TaskScores(PeriodicCallback):
    """Log task/rate, the share of correct answers, and task/least, that of the worst kind of question.

    The test cases are the same each time, scored by the strict procedure. TensorBoard also shows each kind.
    """

    def __init__(self, config: TaskConfig, language: CorpusConfig | None) -> None:
        super().__init__(config.every)
        self.config, self.language = config, language

    def act(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        name = str(self.config.name)
        with pl_module.evaluation_mode() as model:
            scores = score_task(model, pl_module.tokenizer, name, self.language, count=self.config.cases)
        right, asked = sum(score.right for score in scores), sum(score.asked for score in scores)
        worst = min(scores, key=lambda score: score.rate)
        pl_module.log_metrics({"task/rate": right / asked, "task/least": worst.rate})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                kinds = {f"task/{name}/{score.kind}": score.rate for score in scores}
                logger.log_metrics(kinds, step=trainer.global_step)
        log.info(
            "%s at step %d: %.1f %% correct; worst: %.1f %% (%s)",
            name, trainer.global_step, 100 * right / asked, 100 * worst.rate, worst.kind,
        )  # fmt: skip
