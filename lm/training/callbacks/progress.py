"""The progress bar, in optimizer steps.

Lightning's progress bars count micro-batches and show an epoch, which a run does not have.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from lm.training.module import LanguageModule

log = logging.getLogger("lm")


class Progress(ProgressBar):
    """Show a progress bar in a terminal, and log a line per validation to the console and train.log."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Bar | None = None

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        if not trainer.is_global_zero or not rich.get_console().is_terminal:
            return
        self.bar = Bar(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TextColumn("{task.description}"),
            TextColumn("eta"), TimeRemainingColumn(), TextColumn("elapsed"), TimeElapsedColumn(), expand=True,
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task("", total=pl_module.horizon, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LanguageModule, *_: Any) -> None:
        if pl_module.stepped:
            self._update(trainer, pl_module.latest)

    def _update(self, trainer: L.Trainer, latest: dict[str, float]) -> None:
        if self.bar is not None:
            parts = [f"{key} {latest[key]:.3f}" for key in ("train/loss", "val/loss") if key in latest]
            parts += [format_tokens_per_second(latest)] if "perf/tokens_per_s" in latest else []
            self.bar.update(self.task, completed=trainer.global_step, description="  ".join(parts))

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        latest = pl_module.latest
        keys = ("train/loss", "val/loss", "val/excess", "val/bpb")
        parts = [f"step {trainer.global_step}/{pl_module.horizon}"]
        parts += [f"{key} {latest[key]:.4f}" for key in keys if key in latest]
        parts += [format_tokens_per_second(latest)] if "perf/tokens_per_s" in latest else []
        parts += [f"mfu {latest['perf/mfu']:.1%}"] if "perf/mfu" in latest else []
        log.info("  ".join(parts))
        self._update(trainer, latest)

    def on_train_end(self, trainer: L.Trainer, pl_module: LanguageModule) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_exception(self, trainer: L.Trainer, pl_module: LanguageModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


def format_tokens_per_second(latest: dict[str, float]) -> str:
    speed = latest["perf/tokens_per_s"]
    return f"{speed / 1e3:.1f}k tokens/s" if speed < 1e6 else f"{speed / 1e6:.2f}M tokens/s"
