"""Read metrics.csv, including that of a run that is still training or was killed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from lm.base.errors import UserError

Row = dict[str, float]  # "step" and the metrics that were logged at this step


def read_metrics(directory: Path) -> list[Row]:
    """Return the rows of a run's metrics.csv, or an empty list if the file does not exist.

    An incomplete last row, which is being written or was cut off by a kill, is skipped. Raises UserError if the file is
    corrupted.
    """
    path = directory / "metrics.csv"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        try:
            rows.append({key: float(value) for key, value in row.items() if value})
            rows[-1]["step"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is corrupted: row {len(rows) + 1} must contain numbers only and have a step"
            ) from error
    return rows


def training_seconds(rows: Sequence[Row], start: float = 0.0) -> tuple[list[float], list[float]]:
    """Return steps and the seconds of training from step `start` to each: the sum of steps times perf/step_ms."""
    steps, seconds = [start], [0.0]
    for row in rows:
        if "perf/step_ms" in row:
            seconds.append(seconds[-1] + (row["step"] - steps[-1]) * row["perf/step_ms"] / 1e3)
            steps.append(row["step"])
    return steps, seconds
