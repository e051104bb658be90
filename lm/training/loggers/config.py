"""Settings of the loggers. The classes are imported when they are built, as in `lm/training/callbacks/config.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lm.training.observers import guard

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


HOOKS = ("log_metrics", "log_hyperparams", "save", "finalize")  # methods that Lightning and this package call


@dataclass
class LoggerConfig:
    """Settings of the loggers, which write to the run directory."""

    csv: bool = True  # write metrics.csv
    tensorboard: bool = True  # write TensorBoard events

    def build(self, directory: Path, step: int) -> list[Logger]:
        """Return the loggers of a run that resumes after `step`. They drop later points, and cannot end the run."""
        from lm.training.loggers.curves import CSVCurve, TensorBoard

        loggers: list[Logger] = [guard(CSVCurve(directory, step), "metrics.csv", HOOKS)] if self.csv else []
        return [*loggers, guard(TensorBoard(directory, step), "TensorBoard", HOOKS)] if self.tensorboard else loggers
