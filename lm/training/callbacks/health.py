"""Warnings about the metrics of a run during training (lm/training/health.py)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning as L

from lm.training.health import Advice, Facts, Health

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")
PREFIX = {logging.INFO: "note     ", logging.WARNING: "warning  "}  # aligned with the lines at the start of a run


class HealthChecks(L.Callback):
    """Pass the logged metrics to Health and log its advice. It reads no tensors, so it cannot change the run.

    `new` is True if the run starts from untrained weights.
    """

    def __init__(self, log_every: int, new: bool) -> None:
        self.log_every, self.new = log_every, new

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model, c = pl_module.model, pl_module.model.config
        targets = len(data.tokens.val) - 1
        assert pl_module.optimizer.lr is not None
        facts = Facts(
            parameters=model.num_params,
            vocab_size=pl_module.tokenizer.vocab_size,
            tokens=pl_module.horizon * data.config.batch_size * c.block_size,
            train_tokens=len(data.tokens.train),
            val_tokens=min(targets, data.limit * c.block_size) if data.limit else targets,
            dropout=any((c.dropout_mlp, *map(c.dropout_at, ("embd", "attn", "resid")))),
            warmup_steps=pl_module.schedule.warmup(pl_module.horizon),
            warmup_key=pl_module.schedule.warmup_key,
            lr=pl_module.optimizer.lr,
            grad_clip=pl_module.optimizer.grad_clip,
            val_key=data.tokens.val_key,
            new=self.new,
        )
        self.health = Health(facts)
        self._log(trainer, self.health.check_start())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        step, latest = trainer.global_step, pl_module.latest
        logged = pl_module.stepped and (step % self.log_every == 0 or step == 1)  # by StepMetrics, called before
        if logged and "train/loss" in latest:  # a skipped step has none
            skipped = int(latest.get("train/skipped", 0))
            self._log(trainer, self.health.check_step(step, latest["train/loss"], latest["train/grad_norm"], skipped))

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        self._log(trainer, self.health.check_validation(trainer.global_step, pl_module.latest["val/loss"]))

    @staticmethod
    def _log(trainer: L.Trainer, advice: list[Advice]) -> None:
        if trainer.is_global_zero:
            for level, text in advice:
                log.log(level, "%s %s", PREFIX[level], text)
