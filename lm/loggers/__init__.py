"""Where metrics go. The classes are imported when they are built, as in lm/callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


@dataclass
class LoggerConfig:
    """Which of the two write into the run directory."""

    csv: bool = True
    tensorboard: bool = True

    def build(self, directory: Path, step: int) -> list[Logger]:
        """The loggers of a run that goes on after `step`; points beyond it are taken back."""
        from lm.loggers.curves import CSVCurve, TensorBoard

        loggers: list[Logger] = [CSVCurve(directory, step)] if self.csv else []
        return [*loggers, TensorBoard(directory, step)] if self.tensorboard else loggers
