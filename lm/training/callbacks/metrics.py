"""Log train/* and perf/* metrics.

Lightning's ThroughputMonitor waits for the device at every batch, and does not know the peak FLOP/s of most GPUs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L

from lm.base.hardware import peak_memory_gb, synchronize

if TYPE_CHECKING:
    from lm.training.module import LanguageModule


class StepMetrics(L.Callback):
    """Log the metrics of steps 1, log_every, 2 log_every, ...; only these steps wait for the device.

    Only training is timed: validation, saving and sampling stop the clock (`pause`), and the next batch starts it.
    `peak` is the peak FLOP/s of one device; if it is None, perf/mfu is not logged. Raises Diverged when the loss or a
    gradient is not finite.
    """

    def __init__(self, log_every: int, peak: float | None) -> None:
        self.log_every, self.peak = log_every, peak
        self.seconds, self.steps = 0.0, 0  # training time and steps since the last log step
        self.first = True
        self.started: float | None = None

    @staticmethod
    def pause(trainer: L.Trainer) -> None:
        """Stop the clock until the next batch."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StepMetrics):
                callback._stop(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self.started is None:
            self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        if not pl_module.stepped:
            return
        self.steps += 1
        step = trainer.global_step
        if step % self.log_every == 0 or step == 1:
            pl_module.require_finite()
            metrics = pl_module.step_metrics()
            self._stop(trainer)
            if not self.first:
                metrics |= self._speed(trainer, pl_module)
            pl_module.log_metrics(metrics)
        if self.first or step % self.log_every == 0:  # the first step is not timed: it fills caches
            self._stop(trainer)
            self.first, self.seconds, self.steps = False, 0.0, 0
            self.started = time.perf_counter()

    def _speed(self, trainer: L.Trainer, pl_module: LanguageModule) -> dict[str, float]:
        model, batch_size = pl_module.model, trainer.datamodule.config.batch_size  # type: ignore[attr-defined]
        tokens_per_s = self.steps * batch_size * model.config.block_size / self.seconds
        speed = {
            "perf/tokens_per_s": tokens_per_s,
            "perf/step_ms": 1e3 * self.seconds / self.steps,
            "perf/memory_gb": peak_memory_gb(trainer.strategy.root_device),
        }
        if self.peak:
            speed["perf/mfu"] = tokens_per_s * model.flops_per_token / (self.peak * trainer.world_size)
        return speed

    def _stop(self, trainer: L.Trainer) -> None:
        if self.started is not None:
            synchronize(trainer.strategy.root_device)
            self.seconds += time.perf_counter() - self.started
            self.started = None

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._stop(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        self._stop(trainer)
